"""Finds the other end of a connection within this machine, according to the kernel.

TCP does not say which user has it: sock_diag(7) looks one connection up by its
two ends. Of a Unix socket it knows the one that it is connected to. The layouts
are those of linux/sock_diag.h, linux/inet_diag.h and linux/unix_diag.h.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from localrpc._later import Later

if TYPE_CHECKING:
    import socket
else:
    socket = Later("socket")

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_ESTABLISHED = 1
_ALL_STATES = 0xFFFFFFFF

_NLMSG = struct.Struct("=IHHII")  # length, type, flags, sequence, pid
_REQUEST = struct.Struct("=BBBBI")  # family, protocol, extensions, padding, states
_PORTS = struct.Struct("!HH")
_NO_INTERFACE_NO_COOKIE = struct.pack("=I8s", 0, b"\xff" * 8)
_UNIX_REQUEST = struct.Struct("=BBHIII8s")  # family, protocol, padding, states, inode, show, cookie
_UNIX_MESSAGE = struct.Struct("=BBBBI8s")  # family, type, state, padding, inode, cookie
_SHOW_PEER = 4
_ATTRIBUTE_PEER = 2
_PEER = struct.Struct("=HHI")  # length, attribute, inode
_MESSAGE = struct.Struct("=BBBB48sIIIII")  # family, state, ..., id, ..., uid, inode


class Holder(NamedTuple):
    """The user that owns a socket, and the socket's inode."""

    uid: int
    inode: int


def holder_of_other_end(sock: socket.socket) -> Holder | None:
    """Return the owner of the peer's socket; None if no process of this machine has it open.

    So it is for a peer elsewhere, for one that has closed its end already, and
    for a server that has not accepted yet. Raises OSError when the kernel does
    not answer.
    """
    family = sock.family
    # The addresses of the peer's end are those of this end, exchanged.
    local, remote = sock.getpeername(), sock.getsockname()
    ports = _PORTS.pack(local[1], remote[1])
    ends = b"".join(socket.inet_pton(family, end[0].partition("%")[0]).ljust(16, b"\0")
                    for end in (local, remote))  # fmt: skip
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, _ALL_STATES)
    answer = _ask(request + ports + ends + _NO_INTERFACE_NO_COOKIE)
    if answer is None:
        return None
    _, state, _, _, identity, _, _, _, uid, inode = _MESSAGE.unpack_from(answer)
    # A listener is what the kernel offers in place of a connection that is gone, and a socket
    # without an inode has no owner: its uid would read as root's.
    if identity[:4] != ports or state != _ESTABLISHED or not inode:
        return None
    return Holder(uid, inode)


def inode_of_other_end(sock: socket.socket) -> int:
    """Return the inode of a connected Unix socket's peer; 0 if that is not known."""
    inode = os.fstat(sock.fileno()).st_ino & 0xFFFFFFFF
    request = _UNIX_REQUEST.pack(socket.AF_UNIX, 0, 0, _ALL_STATES, inode, _SHOW_PEER, b"\xff" * 8)
    try:
        answer = _ask(request)
    except OSError:  # a kernel that does not say
        return 0
    if answer is None or len(answer) < _UNIX_MESSAGE.size + _PEER.size:
        return 0
    _, attribute, peer = _PEER.unpack_from(answer, _UNIX_MESSAGE.size)
    return int(peer) if attribute == _ATTRIBUTE_PEER else 0


def _ask(request: bytes) -> bytes | None:
    """Return the kernel's answer; None if there is no such socket. Raises OSError."""
    header = _NLMSG.pack(_NLMSG.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, _NETLINK_SOCK_DIAG) as netlink:
        netlink.send(header + request)
        answer = netlink.recv(4096)
    _, what, _, _, _ = _NLMSG.unpack_from(answer)
    if what == _NLMSG_ERROR:
        (number,) = struct.unpack_from("=i", answer, _NLMSG.size)
        if -number == errno.ENOENT:
            return None
        raise OSError(-number, os.strerror(-number))
    return answer[_NLMSG.size :]

"""Identifies the process at the other end through the kernel, and decides if it is allowed."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from localrpc.options import Options
from localrpc.transports.base import PeerCredentials
from localrpc.transports.sockdiag import inode_of_other_end

if TYPE_CHECKING:
    import socket
else:
    # A client needs only the part in C: importing the rest takes as long as a first call.
    import _socket as socket

_UCRED = struct.Struct("3i")
# linux/socket.h, since 6.5 and 4.13; Python has no names for them.
_SO_PEERPIDFD = 77
_SO_PEERGROUPS = 59
_MOST_GROUPS = 256
"""Python's getsockopt() gives 1,024 bytes."""


def peer_credentials(sock: socket.socket) -> PeerCredentials:
    """Return them as they were when the peer called connect() or listen()."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return PeerCredentials(*_UCRED.unpack(raw))


def open_peer_pidfd(sock: socket.socket, peer: PeerCredentials) -> int:
    """Return a descriptor that becomes readable when the peer dies, -1 if there is none.

    SO_PEERPIDFD names the very process, in whatever PID namespace it lives.
    Without it a PID in a foreign namespace is 0, and the socket's end alone
    signals the peer's death.
    """
    try:
        pidfd = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError:
        pass
    else:
        os.set_inheritable(pidfd, False)
        return pidfd
    if peer.pid <= 0:
        return -1
    try:
        return os.pidfd_open(peer.pid)
    except OSError:
        # Gone already, or a kernel before 5.3: the end of the socket will show it.
        return -1


def watch_peer(sock: socket.socket, peer: PeerCredentials, pid: int) -> tuple[PeerCredentials, int]:
    """Return the peer of a Unix socket, and a pidfd or -1; its HELLO says `pid`.

    SO_PEERCRED names who called listen() or socketpair(), and where that process
    has passed the socket on, its end is not the connection's.
    """
    if peer.pid in (0, pid):
        return peer, open_peer_pidfd(sock, peer)
    device, inode = os.fstat(sock.fileno()).st_dev, inode_of_other_end(sock)
    if not inode:
        return peer, open_peer_pidfd(sock, peer)
    found, pidfd = identified(
        peer._replace(pid=0),
        pid,
        lambda pid: open_pidfd_of_holder(pid, device, inode),
    )
    if pidfd < 0:
        # In a PID namespace of its own it has another number there than here.
        pidfd = open_pidfd_of_holder(peer.pid, device, inode)
        found = peer if pidfd >= 0 else found
    return found, pidfd


def peer_groups(sock: socket.socket) -> tuple[int, ...]:
    """Return the supplementary groups of the process that called connect().

    Of one with more than 256 only the first counts.
    """
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 4 * _MOST_GROUPS)
    except OSError as error:
        if error.errno not in (errno.ERANGE, errno.ENOPROTOOPT):
            raise
        return ()
    return struct.unpack(f"{len(raw) // 4}I", raw)


def groups_of_user(uid: int) -> Iterable[int]:
    """Return the groups from the system's database, if the kernel does not tell the process's."""
    import pwd

    try:
        entry = pwd.getpwuid(uid)
    except (KeyError, OverflowError):
        return ()
    return os.getgrouplist(entry.pw_name, entry.pw_gid)


def _no_groups() -> Iterable[int]:
    return ()


def refusal_of_client(
    peer: PeerCredentials,
    options: Options,
    groups: Callable[[], Iterable[int]] = _no_groups,
) -> str | None:
    """Return why a server of this user does not serve this peer; None if it does.

    `groups` is asked for the peer's further groups, if groups matter.
    """
    own = os.geteuid()
    access = options.access
    if peer.uid in (own, 0) or peer.uid in access.users:
        return None
    if access.everybody and peer.uid >= 0:
        return None
    if access.groups and not access.groups.isdisjoint((peer.gid, *groups())):
        return None
    if access.others:
        return (
            f"this server belongs to uid {own}, and its options localrpc.allow_users and"
            f" localrpc.allow_groups do not allow uid {peer.uid}"
        )
    return (
        f"this server belongs to uid {own} and serves only that user, not uid {peer.uid};"
        f" run client and server as the same user, or allow others with localrpc.allow_users"
    )


def refusal_of_server(peer: PeerCredentials, options: Options) -> str | None:
    """Return why a client of this user refuses this peer; None if it does not.

    Unless localrpc.server_user names the server's user, root may dial any server.
    """
    own = os.geteuid()
    if options.server_users:
        if peer.uid in options.server_users:
            return None
        wanted = " or ".join(map(str, sorted(options.server_users)))
        return f"the server belongs to uid {peer.uid}, not to uid {wanted} (localrpc.server_user)"
    if own == 0 or peer.uid in (own, 0):
        return None
    return (
        f"the server belongs to uid {peer.uid} and this process to uid {own}; run client and"
        f" server as the same user, or name the server's user with the option localrpc.server_user"
    )


def identified(
    peer: PeerCredentials, pid: int, open_pidfd: Callable[[int], int]
) -> tuple[PeerCredentials, int]:
    """`peer` with the pid that it claims and a pidfd, if `open_pidfd` confirms it; else -1."""
    pidfd = open_pidfd(pid) if pid else -1
    if pidfd < 0:
        return peer, -1
    try:
        gid = os.stat(f"/proc/{pid}").st_gid
    except OSError:
        gid = -1  # it is dead, which its pidfd shows
    return peer._replace(pid=pid, gid=gid), pidfd


def open_pidfd_of_holder(pid: int, device: int, inode: int) -> int:
    """Return a pidfd of process `pid` if it visibly has that file open; else -1."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise  # that says nothing of the process
        return -1
    try:
        folder = f"/proc/{pid}/fd"
        for number in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                facts = os.stat(f"{folder}/{number}")
                if (facts.st_dev, facts.st_ino) == (device, inode):
                    return pidfd
    except OSError:
        pass  # it has gone, or belongs to another user
    os.close(pidfd)
    return -1


def open_pidfd_of_sharer(pid: int, fd: int) -> int:
    """As open_pidfd_of_holder(), for a file that this process has open as `fd`."""
    facts = os.fstat(fd)
    return open_pidfd_of_holder(pid, facts.st_dev, facts.st_ino)


def maker_of(fd: int) -> PeerCredentials:
    """The owner of a pipe or queue: the kernel records its user, but not the process."""
    facts = os.fstat(fd)
    return PeerCredentials(0, facts.st_uid, facts.st_gid)

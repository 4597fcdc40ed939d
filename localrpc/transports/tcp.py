"""tcp:, frames on a TCP connection, within this machine unless the target says otherwise.

Of a connection within the machine the kernel knows the user at the other end, so a server
serves its own user only, as on every other transport. Peers on other machines cannot be
identified: with ?interfaces=any a server serves all that can reach it.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import select
import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

from localrpc.address import Address
from localrpc.errors import AddressInUse, ConnectError, GreetingError, ListenError
from localrpc.options import Options
from localrpc.transports import limits
from localrpc.transports.attempt import Attempt
from localrpc.transports.base import (
    EVERYBODY,
    Admission,
    Dialer,
    Listener,
    PeerCredentials,
    Redialer,
    Transport,
)
from localrpc.transports.byte_channels import SocketChannel
from localrpc.transports.credentials import (
    groups_of_user,
    identified,
    open_pidfd_of_holder,
    refusal_of_client,
    refusal_of_server,
)
from localrpc.transports.handshake_client import ClientSide, dial
from localrpc.transports.handshake_server import ServerSide
from localrpc.transports.names import BoundSocket
from localrpc.transports.scheme import Kind, Scope, what_is_missing
from localrpc.transports.sockdiag import holder_of_other_end
from localrpc.transports.sockets import SocketListener, dialled_as
from localrpc.transports.targets import INTERFACES, SPIN, check_characters, is_elsewhere
from localrpc.wire.codec import Hello

_BACKLOG = 1024
_UNKNOWN = -1
_KIND = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC

# A machine that disappears sends nothing: the kernel sends a probe after so many seconds of
# silence, again after so many more, and gives up after that number of probes.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))

_ELSEWHERE = (
    "is not of this machine alone; add ?interfaces=any if that is meant (nothing is encrypted"
    " there and no client's user is known), or use 127.0.0.1"
)

_Place = tuple[socket.AddressFamily, Any]
"""A family and what bind() and connect() take in it."""


def _places(address: Address) -> list[_Place]:
    """Resolve the name, IPv4 first. Raises OSError, or ValueError if it is not this machine."""
    host, _, port = address.body.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    places = [(family, place) for family, _, _, _, place in found]
    if not is_elsewhere(address):
        for _, place in places:
            if not _is_loopback(str(place[0])):
                raise ValueError(f"{place[0]} {_ELSEWHERE}")
    return sorted(places, key=lambda place: place[0] != socket.AF_INET)


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def place_name(place: Any) -> str:
    """Return a peer as gRPC spells it: ipv4:127.0.0.1:5000, ipv6:%5B::1%5D:5000."""
    host, port = place[:2]
    return f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"


def prepare(sock: socket.socket, remote: str) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not _is_loopback(remote):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _identify(channel: SocketChannel) -> PeerCredentials:
    """Raises GreetingError if no process has the other end of a connection within the machine."""
    sock = channel.sock
    try:
        holder = holder_of_other_end(sock)
        local = _is_loopback(sock.getpeername()[0])
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        holder, local = None, True
    if holder is None and local:
        reason = "it closed the connection before it could be identified"
        raise GreetingError(reason, quiet=True, passing=True)
    return PeerCredentials(0, holder.uid if holder else _UNKNOWN, _UNKNOWN)


def _watch(
    channel: SocketChannel, peer: PeerCredentials, hello: Hello
) -> tuple[PeerCredentials, int]:
    """Return the process named by the HELLO, if the kernel agrees; a child may hold the socket."""
    holder = holder_of_other_end(channel.sock)
    if holder is None:
        return peer, -1
    device = os.fstat(channel.sock.fileno()).st_dev
    return identified(peer, hello.pid, lambda pid: open_pidfd_of_holder(pid, device, holder.inode))


def _welcome_from_elsewhere(address: Address, peer: PeerCredentials) -> bool:
    """True if it has no user on this machine, and the target allows that."""
    return peer.uid == _UNKNOWN and is_elsewhere(address)


def server_side(address: Address, *, single: bool = False) -> ServerSide[SocketChannel]:
    """For one client at a TCP socket."""
    name = ""

    def identify(channel: SocketChannel) -> PeerCredentials:
        nonlocal name
        peer = _identify(channel)
        place = channel.sock.getpeername()
        prepare(channel.sock, place[0])
        name = place_name(place)
        return peer

    def objection(channel: SocketChannel, peer: PeerCredentials, options: Options) -> str | None:
        if _welcome_from_elsewhere(address, peer):
            return None
        return refusal_of_client(peer, options, lambda: groups_of_user(peer.uid))

    return ServerSide(
        identify=identify,
        watch=_watch,
        objection=objection,
        peer_name=lambda peer: name,
        dialled_as=dialled_as,
        # A close with something unread is a reset, which takes our refusal with it.
        identified_late=True,
        answers_http2=True,
        single=single,
    )


def _try_loopback() -> None:
    with socket.socket(socket.AF_INET, _KIND) as sock:
        try:
            sock.bind(("127.0.0.1", 0))
        except OSError as error:
            reason = f"127.0.0.1 is not available ({error.strerror}): ip link set lo up"
            raise OSError(error.errno, reason) from None


def _limits() -> dict[str, int]:
    return {
        "RLIMIT_NOFILE": limits.rlimit("RLIMIT_NOFILE"),
        **limits.settings("net/core", "somaxconn", "wmem_max"),
    }


class TcpTransport(Transport):
    scheme = "tcp"
    options = (SPIN, INTERFACES)
    kinds = (
        Kind(
            form="HOST:PORT",
            spellings={
                "tcp:HOST:PORT": "`tcp:127.0.0.1:5000`, `tcp:localhost:5000`, `tcp:[::1]:5000`;"
                " with port 0 the server chooses a port, and `add_insecure_port` returns it"
            },
            scope=Scope.MACHINE,
            direction="full duplex",
            technique="a TCP connection over the loopback interface",
            credentials="uid; pid, for processes of the same user: sock_diag",
            limits=_limits,
            missing=lambda: what_is_missing(_try_loopback),
        ),
    )
    quality = "Processes that share a network namespace and no file system meet here."

    def check(self, name: str) -> str:
        name = name.removeprefix("//")
        check_characters(name)
        match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]/]+):([0-9]{1,5})", name)
        if name and (match is None or int(match[2]) > 65535):
            raise ValueError(
                "write host and port, as in tcp:127.0.0.1:5000, tcp:localhost:5000 or"
                " tcp:[::1]:5000; with port 0 the server chooses one"
            )
        return name

    def closed_to_others(self, address: Address) -> str | None:
        return None

    def listen(
        self, address: Address, options: Options, admission: Admission = EVERYBODY
    ) -> Listener:
        sides = partial(server_side, address)
        return SocketListener(address, options, admission, self.bind(address, options), sides)

    def bind(self, address: Address, options: Options) -> BoundSocket:
        try:
            family, place = _places(address)[0]
            sock = _listen(family, place)
        except ValueError as error:
            raise ListenError(str(address), str(error)) from None
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                reason = "a live server already listens there; stop it, or use another port"
                raise AddressInUse(str(address), reason) from None
            raise ListenError(str(address), _bind_reason(error)) from error
        return BoundSocket(sock, port=sock.getsockname()[1])

    def dialer(self, address: Address, options: Options) -> Dialer:
        side = client_side(
            address, lambda attempt: _connect(address, attempt), f"tcp:{address.body}"
        )
        return Redialer(partial(dial, side, address, options))


def client_side(
    address: Address, connect: Callable[[Attempt], socket.socket], peer_name: str
) -> ClientSide[SocketChannel]:
    """Dials by TCP; `connect` returns a prepared connection, made by any code."""
    return ClientSide(
        connect=lambda attempt: SocketChannel(connect(attempt)),
        identify=_identify,
        peer_name=peer_name,
        objection=partial(_refusal, address),
        watch=_watch,
        identified_late=True,
    )


def check_place(address: Address, sock: socket.socket) -> None:
    """Raises ValueError for a socket that others can reach, unless the target allows it."""
    place = sock.getsockname()[0]
    if not is_elsewhere(address) and not _is_loopback(place):
        raise ValueError(f"{place} {_ELSEWHERE}")


def _refusal(address: Address, peer: PeerCredentials, options: Options) -> str | None:
    return None if _welcome_from_elsewhere(address, peer) else refusal_of_server(peer, options)


def _listen(family: socket.AddressFamily, place: Any) -> socket.socket:
    sock = socket.socket(family, _KIND)
    try:
        # Connections of a server that has just ended do not keep its port from the next;
        # one that listens does.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(place)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_reason(error: OSError) -> str:
    reason = error.strerror or str(error)
    if isinstance(error, socket.gaierror):
        return f"the host is not known: {reason}"
    if error.errno == errno.EACCES:
        return f"{reason}: ports below 1024 are reserved for root; use a higher one or 0"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{reason}: the host is not this machine"
    return reason


def _connect(address: Address, attempt: Attempt) -> socket.socket:
    try:
        places = _places(address)
    except ValueError as error:
        raise ConnectError(str(address), str(error)) from None
    except OSError as error:
        raise ConnectError(str(address), _bind_reason(error)) from error
    failure = ConnectError(str(address), "the host has no address")
    for family, place in places:
        try:
            return _connect_to(family, place, attempt)
        except OSError as error:
            reason = error.strerror or str(error)
            failure = ConnectError(str(address), f"connect failed: {reason} ({_fix(error, place)})")
    raise failure


def _fix(error: OSError, place: Any) -> str:
    where = place_name(place)
    if error.errno == errno.ECONNREFUSED:
        return f"no server listens on {where}: start it, or check the port"
    if error.errno == errno.ETIMEDOUT:
        return f"the server on {where} does not take connections: it is stopped or busy"
    return where


def _connect_to(family: socket.AddressFamily, place: Any, attempt: Attempt) -> socket.socket:
    sock = socket.socket(family, _KIND)
    try:
        number = sock.connect_ex(place)
        if number == errno.EINPROGRESS:
            poller = select.poll()
            poller.register(sock, select.POLLOUT)
            ready = attempt.poll(poller)
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not ready:
                number = errno.ETIMEDOUT
        # A port without a listener may have been chosen for our own end: then TCP
        # connects the socket to itself. Reset it: its TIME_WAIT would keep the server out.
        if number == 0 and sock.getsockname() == sock.getpeername():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            number = errno.ECONNREFUSED
        if number:
            raise OSError(number, os.strerror(number))
        prepare(sock, sock.getpeername()[0])
    except BaseException:
        sock.close()
        raise
    return sock

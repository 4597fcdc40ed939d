"""fd:, a socket that a parent or a service manager has passed to this process.

A listening socket serves the clients that dial it; its name, if it has one, is not removed.
Clients of a Unix one may have rings in shared memory, if they dial it as shm:.
A connected socket is one connection: a server's only client, or a channel's only server.
The sockets are checked like other Unix and TCP sockets.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from functools import partial
from typing import Any

from localrpc.address import Address
from localrpc.errors import AddressError, ListenError
from localrpc.options import Options
from localrpc.transports import limits, passed_sockets, rings, tcp
from localrpc.transports.base import EVERYBODY, Admission, Dialer, Listener, Transport
from localrpc.transports.byte_channels import SocketChannel
from localrpc.transports.forks import forget_after_fork
from localrpc.transports.handover import HandoverListener
from localrpc.transports.handshake_client import ClientSide
from localrpc.transports.names import BoundSocket
from localrpc.transports.once import Once
from localrpc.transports.scheme import Kind, Scope
from localrpc.transports.sockets import SocketListener, identify, unix_side, watch
from localrpc.transports.targets import INTERFACES, SPIN


class FdTransport(Transport):
    scheme = "fd"
    options = (*rings.OPTIONS, INTERFACES)
    kinds = (
        Kind(
            form="N",
            spellings={
                "fd:N": "a socket that another process has left to this one, by its number",
                "fd:NAME": "the same, by its name in `LISTEN_FDNAMES`",
            },
            scope=Scope.MACHINE,
            direction="full duplex",
            technique="a Unix or TCP socket that another process has opened",
            credentials="as with unix: and tcp:",
            limits=lambda: {"RLIMIT_NOFILE": limits.rlimit("RLIMIT_NOFILE")},
        ),
    )
    connects_processes = False

    def check(self, name: str) -> str:
        # A name is what sd_listen_fds(3) allows.
        if name and not re.fullmatch(r"[0-9]{1,7}|(?![0-9]+$)[\x20-9;-~]{1,255}", name):
            raise ValueError(
                "write the number of a descriptor, as in fd:3, or a name out of LISTEN_FDNAMES,"
                " which has printable ASCII characters without ':'"
            )
        return name

    def combine(self, options: dict[str, Any]) -> None:
        rings.combine(options)

    def closed_to_others(self, address: Address) -> str | None:
        return None  # the creator of the socket has set its permissions

    def bind(self, address: Address, options: Options) -> BoundSocket | None:
        sock = _take(address)
        if passed_sockets.listens(sock):
            return BoundSocket(sock)
        passed_sockets.release(sock)
        return None  # one connection cannot be shared

    def listen(
        self, address: Address, options: Options, admission: Admission = EVERYBODY
    ) -> Listener:
        sock = _take(address)
        try:
            return _listener(sock, address, options, admission)
        except (OSError, ValueError) as error:
            passed_sockets.release(sock)
            reason = getattr(error, "strerror", None) or str(error)
            raise ListenError(str(address), reason) from error

    def dialer(self, address: Address, options: Options) -> Dialer:
        try:
            sock = passed_sockets.take(address.body)
        except ValueError as error:
            raise AddressError(f"target {str(address)!r}: {error}") from None
        if passed_sockets.listens(sock):
            passed_sockets.release(sock)
            raise AddressError(
                f"target {str(address)!r}: its socket listens, so it is for a server's"
                " add_insecure_port(); a channel takes a connected one"
            )
        try:
            _refuse_rings(address, "a connected socket")
        except ValueError as error:
            passed_sockets.release(sock)
            raise AddressError(f"target {str(address)!r}: {error}") from None
        return _OnlyServer(sock, address, options)


def _take(address: Address) -> socket.socket:
    try:
        return passed_sockets.take(address.body)
    except ValueError as error:
        raise ListenError(str(address), str(error)) from None


def _refuse_rings(address: Address, kind: str) -> None:
    """Raises ValueError if the target speaks of rings, which this kind of socket cannot have."""
    for option in rings.OPTIONS:
        if option is not SPIN and option.key in address.options:
            raise ValueError(
                f"{kind} has no rings in shared memory; leave {option.key}= out, which is for a"
                " Unix socket that listens"
            )


def _listener(
    sock: socket.socket, address: Address, options: Options, admission: Admission
) -> Listener:
    is_tcp = sock.family != socket.AF_UNIX
    if not passed_sockets.listens(sock):
        _refuse_rings(address, "a connected socket")
        side = tcp.server_side(address, single=True) if is_tcp else unix_side(single=True)
        one = HandoverListener(address, options, admission, side, activated=True)
        one.hand_over(sock)
        return one
    if not is_tcp:
        rings.prepare_server(address)
        sides = partial(unix_side, welcome=rings.welcome_any)
        return SocketListener(address, options, admission, BoundSocket(sock), sides, shared=True)
    _refuse_rings(address, "a TCP socket")
    tcp.check_place(address, sock)
    bound = BoundSocket(sock, port=sock.getsockname()[1])
    sides = partial(tcp.server_side, address)
    return SocketListener(address, options, admission, bound, sides, shared=True)


class _OnlyServer(Once[SocketChannel]):
    def __init__(self, sock: socket.socket, address: Address, options: Options) -> None:
        super().__init__(address)
        self._sock = sock
        forget_after_fork(self)
        if sock.family == socket.AF_UNIX:
            side = ClientSide(
                connect=lambda attempt: SocketChannel(sock),
                identify=identify,
                peer_name=f"unix:fd={sock.fileno()}",
                watch=watch,
            )
        else:
            tcp.prepare(sock, sock.getpeername()[0])
            name = tcp.place_name(sock.getpeername())
            side = tcp.client_side(address, lambda attempt: sock, name)
        self.begin(side, options)

    def describe(self, reason: str) -> str:
        return (
            f"{reason}; a channel on a descriptor cannot dial again: make another, on a new"
            " connection"
        )

    def close(self) -> None:
        if os.getpid() == self._owner:
            # The greeting, if it still goes on, must not keep the socket until it gives up.
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
        super().close()

    def forget(self) -> None:
        """Close in a forked child; the handshake continues in the parent."""
        self._sock.close()
        self.forget_untaken()

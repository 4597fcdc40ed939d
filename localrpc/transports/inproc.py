"""inproc:, a pair of Unix sockets within one process, for the tests of user code.

The names are the process's own: they are not visible outside, and a forked child begins without
any.
"""

from __future__ import annotations

import os
import socket
from functools import partial

from localrpc import _locks
from localrpc.address import Address
from localrpc.errors import AddressInUse, ConnectError, ListenError
from localrpc.options import Options
from localrpc.transports import limits
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
from localrpc.transports.handover import HandoverListener
from localrpc.transports.handshake_client import ClientSide, dial
from localrpc.transports.handshake_server import ServerSide, peer_name
from localrpc.transports.names import IN_USE
from localrpc.transports.scheme import Kind, Scope
from localrpc.transports.targets import SPIN, check_characters

_KIND = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC

_lock = _locks.Lock()
_listeners: dict[str, HandoverListener] = {}


def _after_fork_in_child() -> None:
    _listeners.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)


def _this_process() -> PeerCredentials:
    return PeerCredentials(os.getpid(), os.geteuid(), os.getegid(), tuple(os.getgroups()))


_SERVER_SIDE = ServerSide[SocketChannel](
    identify=lambda channel: _this_process(),
    watch=lambda channel, peer, hello: (peer, -1),
    objection=lambda channel, peer, options: None,
    answers_http2=True,
)


class _Listener(HandoverListener):
    def close(self) -> None:
        with _lock:
            if _listeners.get(self.address.body) is self:
                del _listeners[self.address.body]
        super().close()


def connect(address: Address) -> socket.socket:
    """Raises ConnectError if no server listens."""
    with _lock:
        listener = _listeners.get(address.body)
    if listener is not None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, _KIND)
        if listener.hand_over(theirs):
            return ours
        ours.close()
        theirs.close()
    raise ConnectError(
        str(address),
        f"connect failed: no server of this process listens on {address.body}: start it, or check"
        " the name (no other process has it, a parent or a forked child neither)",
    )


class InprocTransport(Transport):
    scheme = "inproc"
    options = (SPIN,)
    kinds = (
        Kind(
            form="NAME",
            spellings={
                "inproc:NAME": "any name, private to the process: client and server are in one"
                " process, as in tests"
            },
            scope=Scope.PROCESS,
            direction="full duplex",
            technique="a pair of Unix sockets within one process",
            credentials="the process itself",
            limits=lambda: {"RLIMIT_NOFILE": limits.rlimit("RLIMIT_NOFILE")},
        ),
    )
    quality = "Client and server in one process: for tests."
    connects_processes = False

    def check(self, name: str) -> str:
        name = name.removeprefix("//")
        check_characters(name)
        return name

    def closed_to_others(self, address: Address) -> str | None:
        return None  # no other process can connect at all

    def listen(
        self, address: Address, options: Options, admission: Admission = EVERYBODY
    ) -> Listener:
        with _lock:
            if address.body in _listeners:
                raise AddressInUse(str(address), IN_USE)
            try:
                listener = _Listener(address, options, admission, _SERVER_SIDE)
            except OSError as error:
                raise ListenError(str(address), error.strerror or str(error)) from error
            _listeners[address.body] = listener
        return listener

    def dialer(self, address: Address, options: Options) -> Dialer:
        side = ClientSide(
            connect=lambda attempt: SocketChannel(connect(address)),
            identify=lambda channel: _this_process(),
            peer_name=peer_name(_this_process()),
            objection=lambda peer, options: None,
            watch=lambda channel, peer, hello: (peer, -1),
        )
        return Redialer(partial(dial, side, address, options))

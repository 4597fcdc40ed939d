"""What transports over sockets share: listening, dialling, and identifying the peer."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable
from typing import TYPE_CHECKING

from localrpc import _log
from localrpc.address import Address
from localrpc.errors import ConnectError
from localrpc.options import Options
from localrpc.transports import handshake_client
from localrpc.transports.attempt import Attempt
from localrpc.transports.base import Admission, Connection, Greeting, Listener, PeerCredentials
from localrpc.transports.byte_channels import SocketChannel
from localrpc.transports.credentials import (
    peer_credentials,
    peer_groups,
    refusal_of_client,
    watch_peer,
)
from localrpc.transports.forks import forget_after_fork
from localrpc.transports.handshake_client import ClientSide, Memory
from localrpc.transports.handshake_server import ServerGreeting, ServerSide, Welcome, stay
from localrpc.transports.names import BoundSocket
from localrpc.wire.codec import Hello

if TYPE_CHECKING:
    import socket
else:
    # A client needs only the part in C: importing the rest takes as long as a first call.
    import _socket as socket

_logger = _log.logger("transports")

_ACCEPT_BATCH = 64
_LAST_BATCHES = 64
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def identify(channel: SocketChannel) -> PeerCredentials:
    """The process at the other end of a Unix socket."""
    return peer_credentials(channel.sock)


def watch(
    channel: SocketChannel, peer: PeerCredentials, hello: Hello
) -> tuple[PeerCredentials, int]:
    return watch_peer(channel.sock, peer, hello.pid)


def _identify_client(channel: SocketChannel) -> PeerCredentials:
    peer = identify(channel)
    try:
        return peer._replace(groups=peer_groups(channel.sock))
    except OSError:  # a sandbox forbids the query
        return peer


def _objection(channel: SocketChannel, peer: PeerCredentials, options: Options) -> str | None:
    # Asked again, because here a failure has to be an error.
    return refusal_of_client(peer, options, lambda: peer_groups(channel.sock))


def _no_objection(channel: SocketChannel, peer: PeerCredentials, options: Options) -> None:
    pass


def dialled_as(channel: SocketChannel, address: Address) -> str:
    if address.scheme != "fd":
        return str(address)
    name = channel.sock.getsockname()
    if isinstance(name, bytes):
        return f"unix-abstract:{os.fsdecode(name[1:])}"
    return f"unix:{name}" if name else "fd:N, its own end of the pair"


def unix_side(
    *, welcome: Welcome[SocketChannel] = stay, single: bool = False, trusted: bool = False
) -> ServerSide[SocketChannel]:
    """For clients at a Unix socket; one that is `trusted` may have any user."""
    return ServerSide(
        identify=_identify_client,
        watch=watch,
        objection=_no_objection if trusted else _objection,
        welcome=welcome,
        dialled_as=dialled_as,
        answers_http2=True,
        single=single,
    )


class SocketListener(Listener):
    """A listening socket, with a name to give back (a path) or without."""

    def __init__(
        self,
        address: Address,
        options: Options,
        admission: Admission,
        bound: BoundSocket,
        side: Callable[[], ServerSide[SocketChannel]],
        *,
        shared: bool = False,
    ) -> None:
        """`side` is called for each client. `shared`: the socket was passed to this process, and
        other processes that have it may accept its clients, too."""
        self.address = address
        self.port = bound.port
        self.activated = shared
        self._options = options
        self._admission = admission
        self._sock = bound.sock
        self._bound: BoundSocket | None = bound
        self._side = side
        self._shared = shared
        # Given up for a moment when the process has no descriptor left, so that
        # waiting clients are refused instead of waking this thread again and again.
        self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._starved = False
        forget_after_fork(self)

    def fileno(self) -> int:
        return self._sock.fileno()

    def accept(self) -> list[Greeting]:
        greetings: list[Greeting] = []
        # One at a time of a shared socket, or the process that wakes up first has them all.
        batch = 1 if self._shared else _ACCEPT_BATCH
        while len(greetings) < batch:
            try:
                sock, _ = self._sock.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.ECONNABORTED:
                    continue
                if error.errno in _NO_DESCRIPTORS:
                    if self._turn_away(error):
                        continue
                    break
                if self._sock.fileno() >= 0:
                    _logger.warning("%s: accept failed: %s", self.address, error)
                break
            self._starved = False
            sock.setblocking(False)
            channel = SocketChannel(sock)
            greetings.append(
                ServerGreeting(channel, self._side(), self.address, self._options, self._admission)
            )
        return greetings

    def _turn_away(self, error: OSError) -> bool:
        """Return True if a client was there: without a free descriptor, accept() does not tell."""
        if not self._starved:
            self._starved = True
            _logger.warning(
                "%s: clients are refused: %s; raise the limit (ulimit -n)",
                self.address,
                error.strerror,
            )
        if self._spare >= 0:
            os.close(self._spare)
        try:
            self._sock.accept()[0].close()
            return True
        except OSError:
            return False
        finally:
            try:
                self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                self._spare = -1

    def close(self) -> None:
        bound, self._bound = self._bound, None
        if bound is not None:
            bound.release()
        # Refuse the clients in the backlog; at most so many batches, in case more keep coming.
        for _ in range(0 if self._shared else _LAST_BATCHES):
            waiting = self.accept()
            for greeting in waiting:
                greeting.dismiss()
            if not waiting:
                break
        self.forget()

    def forget(self) -> None:
        """Close without giving back the name: in a forked child it is the parent's."""
        self._bound = None
        self._sock.close()
        spare, self._spare = self._spare, -1
        if spare >= 0:
            os.close(spare)


def dial_socket(
    name: str | bytes,
    address: Address,
    options: Options,
    attempt: Attempt,
    memory: Memory | None = None,
    memory_refusal: str = "",
) -> Connection:
    """Connect to a Unix socket (bytes: an abstract name) and greet the server.

    Takes `memory`. Raises ConnectError, or what memory.open() raises.
    """
    side = ClientSide(
        connect=lambda attempt: SocketChannel(_connect(name, address, attempt)),
        identify=identify,
        peer_name=f"unix:{address.body}",
        watch=watch,
        takes_load=True,
    )
    return handshake_client.dial(side, address, options, attempt, memory, memory_refusal)


def _connect(name: str | bytes, address: Address, attempt: Attempt) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        while (number := sock.connect_ex(name)) == errno.EAGAIN:
            # The server's queue is full; the kernel offers nothing to wait on.
            attempt.poll(select.poll(), 0.002)
            if not attempt.left():
                break
    except BaseException:
        sock.close()
        raise
    if number == 0:
        return sock
    sock.close()
    where = name if isinstance(name, str) else f"the abstract name {os.fsdecode(name[1:])}"
    fix = {
        errno.ENOENT: f"no server listens on {where}: start it, or check the name",
        errno.ECONNREFUSED: f"no server listens on {where} any longer: start the server again",
        errno.EACCES: f"{where} is not this user's: run client and server as the same user, or"
        " let the server allow this one (localrpc.allow_users) and listen where both can get to",
        errno.EPROTOTYPE: f"{where} is another kind of socket",
        errno.EAGAIN: f"the server on {where} does not take connections: it is stopped or busy",
    }.get(number, where)
    raise ConnectError(str(address), f"connect failed: {os.strerror(number)} ({fix})")

"""What every transport's client shares: connect, check, greet.

A side checks the other's credentials before it believes a word of it. `Road`
is the seam for another kind of medium, `Memory` the one for a transport that
offers more than its socket.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from localrpc import _log
from localrpc._core.links import Link
from localrpc.address import Address
from localrpc.errors import ConnectError, GreetingError
from localrpc.options import Options
from localrpc.transports.attempt import Attempt
from localrpc.transports.base import Connection, ConnectionFacts, PeerCredentials
from localrpc.transports.credentials import (
    peer_credentials,
    refusal_of_server,
    watch_peer,
)
from localrpc.transports.media import Descriptors, Medium, SocketMedium
from localrpc.wire import frames
from localrpc.wire.codec import Hello
from localrpc.wire.greeting import Greeter, Role, agree, hello_frame

_wire = _log.logger("wire")
_logger = _log.logger("transports")

_HUNG_UP = (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)

_warned: set[str] = set()

M = TypeVar("M", bound=Medium)


def _pidfd_of_socket(
    medium: Medium, peer: PeerCredentials, hello: Hello
) -> tuple[PeerCredentials, int]:
    assert isinstance(medium, SocketMedium)
    return watch_peer(medium.sock, peer, hello.pid)


@dataclass(frozen=True)
class Road(Generic[M]):
    """How a client gets to a server by one kind of medium, and who it finds there."""

    connect: Callable[[Attempt], M]
    """A connected medium before that time (monotonic), or ConnectError."""
    identify: Callable[[M], PeerCredentials]
    """Who answers; raises GreetingError when it cannot be told."""
    peer_name: str
    objection: Callable[[PeerCredentials, Options], str | None] = refusal_of_server
    """Why this client does not talk to that server; None if it does."""
    watch: Callable[[M, PeerCredentials, Hello], tuple[PeerCredentials, int]] = _pidfd_of_socket
    """What is known of the server after its HELLO, and a pidfd or -1."""
    identified_late: bool = False
    """Whether that can be told only once the server has accepted."""
    alive: Callable[[], int | None] = lambda: None
    """A descriptor that is readable, or in error, once nobody will answer; None: the medium's
    own end says so."""


class MemoryRefused(Exception):
    """Memory is not to be had; the connection stays on its socket."""


class Memory(ABC):
    """A client's offer of memory beside its socket."""

    ring_size: int
    page_size: int
    wakeup: str
    """How this side's readers will be woken."""
    kind: str
    names: tuple[str, ...] = ()
    """Where it is found when it does not travel as descriptors."""
    fds: list[int]
    """What travels with the HELLO."""

    @abstractmethod
    def open(self, sock_fd: int, pidfd: int, peer: PeerCredentials, bell: int) -> Link:
        """The link, once the server has taken the offer; owns all descriptors from here.

        Raises MemoryRefused when this side cannot map it after all.
        """

    @abstractmethod
    def close(self) -> None:
        """Idempotent, and nothing after open()."""


def make_hello(options: Options, **fields: Any) -> Hello:
    return Hello(
        version_min=frames.VERSION_MIN,
        version_max=frames.VERSION_MAX,
        window=options.window,
        agent=options.user_agent,
        pid=os.getpid(),
        **fields,
    )


def reachable_by_signal(peer: PeerCredentials, hello: Hello) -> PeerCredentials:
    """`peer` with a pid of 0 if it counts threads otherwise: in another PID namespace,
    where its number of a thread could be that of another one here; or it was forked
    after another process had listened."""
    return peer if hello.pid == peer.pid else replace(peer, pid=0)


def warn_fell_back(address: Address, reason: str) -> None:
    """Once per target; every connection's facts say it anyway."""
    target = str(address)
    if target not in _warned:
        _warned.add(target)
        _logger.warning("%s: no shared memory (%s); calls travel on the socket", target, reason)


def stream_connection(
    medium: Medium, pidfd: int, address: Address, refusal: str, **fields: Any
) -> Connection:
    """A connection whose frames travel on the medium, which it takes, and pidfd."""
    facts = ConnectionFacts(address.scheme, medium.kind, refusal or None)
    if refusal:
        warn_fell_back(address, refusal)
    return Connection(link=medium.open_link(pidfd, address), facts=facts, **fields)


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
    road = Road(
        connect=lambda attempt: SocketMedium(_connect(name, address, attempt)),
        identify=lambda medium: peer_credentials(medium.sock),
        peer_name=f"unix:{address.body}",
    )
    return dial_road(road, address, options, attempt, memory, memory_refusal)


def dial_road(
    road: Road[M],
    address: Address,
    options: Options,
    attempt: Attempt,
    memory: Memory | None = None,
    memory_refusal: str = "",
) -> Connection:
    """As dial_socket(), by any road."""
    attempt = attempt.within(options.connect_timeout)
    try:
        with contextlib.closing(road.connect(attempt)) as medium:
            return _greet(road, medium, address, options, attempt, memory, memory_refusal)
    except GreetingError as error:
        reason = f"the greeting failed: {error}"
        raise ConnectError(str(address), reason, passing=error.passing) from None
    except OSError as error:
        reason = f"the greeting failed: {error.strerror or error}"
        raise ConnectError(str(address), reason, passing=error.errno in _HUNG_UP) from error
    finally:
        if memory is not None:
            memory.close()


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
        errno.ECONNREFUSED: f"nobody listens on {where} any more: start the server again",
        errno.EACCES: f"{where} is not this user's: run client and server as the same user, or"
        " let the server allow this one (localrpc.allow_users) and listen where both can get to",
        errno.EPROTOTYPE: f"{where} is another kind of socket",
        errno.EAGAIN: f"the server on {where} does not take connections: it is stopped or swamped",
    }.get(number, where)
    raise ConnectError(str(address), f"connect failed: {os.strerror(number)} ({fix})")


def _greet(
    road: Road[M],
    medium: M,
    address: Address,
    options: Options,
    attempt: Attempt,
    memory: Memory | None,
    memory_refusal: str,
) -> Connection:
    if not road.identified_late:
        peer = _recognise(road, medium, options)
    offer: dict[str, Any] = {}
    if memory is not None:
        offer.update(ring_size=memory.ring_size, page_size=memory.page_size)
        if memory.names:
            offer.update(memory=memory.kind, memory_names=memory.names)
    hello = make_hello(options, memory_refusal=memory_refusal, **offer)
    try:
        medium.send(hello_frame(hello), memory.fds if memory else [])
    except (BrokenPipeError, ConnectionResetError):
        pass  # It hung up on us; its HELLO, if there is one, says why.
    with Descriptors() as fds:
        theirs = _await_hello(medium, road.alive(), attempt, fds)
        agree(hello, theirs)  # a refusal may be believed, whoever says it
        if road.identified_late:
            peer = _recognise(road, medium, options)
        if memory is not None and not theirs.ring_size:
            memory_refusal = theirs.memory_refusal or "the server did not take it"
            memory = None
        if memory is not None and (theirs.ring_size != memory.ring_size or len(fds) != 1):
            raise GreetingError("the server's HELLO does not match the memory offered")
        if memory is None and len(fds):
            raise GreetingError("the server's HELLO carries descriptors without memory")
        peer, pidfd = road.watch(medium, peer, theirs)
        fields: dict[str, Any] = {
            "peer": peer,
            "peer_name": road.peer_name,
            "hello": theirs,
        }
        _wire.log(_log.TRACE, "%s: greeted by %s, %r", address, peer, theirs)
        if memory is None:
            return stream_connection(medium, pidfd, address, memory_refusal, **fields)
        assert isinstance(medium, SocketMedium)
        facts = ConnectionFacts(address.scheme, memory.wakeup, None, memory.ring_size, memory.kind)
        sock = medium.sock.detach()
        link = memory.open(sock, pidfd, reachable_by_signal(peer, theirs), fds.take()[0])
        return Connection(link=link, facts=facts, **fields)


def _recognise(road: Road[M], medium: M, options: Options) -> PeerCredentials:
    peer = road.identify(medium)
    if refusal := road.objection(peer, options):
        raise GreetingError(refusal)
    return peer


def _await_hello(medium: Medium, alive: int | None, attempt: Attempt, fds: Descriptors) -> Hello:
    greeter = Greeter(Role.CLIENT)
    poller = select.poll()
    poller.register(medium, select.POLLIN)
    if alive is not None:
        poller.register(alive, select.POLLIN)
    answers = True
    while True:
        try:
            data, received = medium.receive(greeter.wanted)
        except BlockingIOError:
            if answers:
                answers = _await_more(poller, alive, attempt)
                continue
            data, received = b"", []
        except ConnectionResetError:
            data, received = b"", []
        fds.add(*received)
        if not data:
            raise greeter.receive_eof()
        if hello := greeter.receive(data):
            return hello


def _await_more(poller: select.poll, alive: int | None, attempt: Attempt) -> bool:
    """Wait for something to receive; False: it is the last. Raises GreetingError at the end."""
    events = attempt.poll(poller)
    if not events:
        raise GreetingError(
            "no HELLO from the server in time: it is stopped or swamped, or not a localrpc server"
        )
    # It may have answered before it went: one more look.
    return all(fd != alive for fd, _ in events)

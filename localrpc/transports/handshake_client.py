"""The client's half of a handshake: connect, identify the server, exchange HELLOs."""

from __future__ import annotations

import contextlib
import errno
import select
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic

from localrpc import _log
from localrpc._core.links import Link
from localrpc.address import Address
from localrpc.errors import ConnectError, GreetingError
from localrpc.options import Options
from localrpc.transports.attempt import Attempt
from localrpc.transports.base import Connection, ConnectionFacts, PeerCredentials
from localrpc.transports.byte_channels import ByteChannel, Descriptors, SocketChannel
from localrpc.transports.credentials import refusal_of_server
from localrpc.transports.handshake import C, Watch, make_hello, reachable_by_signal, stream_link
from localrpc.wire import frames
from localrpc.wire.codec import Hello
from localrpc.wire.greeting import Greeter, Role, agree, hello_frame

_wire = _log.logger("wire")

_HUNG_UP = (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)


class ClientSide(Generic[C]):
    """How a client connects through one kind of channel, and how it identifies the server."""

    def __init__(
        self,
        *,
        connect: Callable[[Attempt], C],
        identify: Callable[[C], PeerCredentials],
        peer_name: str,
        watch: Watch[C],
        objection: Callable[[PeerCredentials, Options], str | None] = refusal_of_server,
        identified_late: bool = False,
        alive: Callable[[], int | None] = lambda: None,
        takes_load: bool = False,
    ) -> None:
        self.connect = connect
        """A connected channel before that time (monotonic), or ConnectError."""
        self.identify = identify
        """Identify the server. Raises GreetingError if that is not possible."""
        self.peer_name = peer_name
        self.watch = watch
        self.objection = objection
        """Return why this client refuses that server; None if it does not."""
        self.identified_late = identified_late
        """True if the server can be identified only once it has accepted."""
        self.alive = alive
        """A descriptor that is readable, or in error, once no answer will come; None if the
        end of the channel shows that."""
        self.takes_load = takes_load
        """True if the server may send a descriptor of its load."""


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
        """Return the link once the server has accepted the offer; owns all descriptors from here.

        Raises MemoryRefused when this side cannot map it after all.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the offer. Idempotent; does nothing after open()."""


def dial(
    side: ClientSide[C],
    address: Address,
    options: Options,
    attempt: Attempt,
    memory: Memory | None = None,
    memory_refusal: str = "",
) -> Connection:
    """Connect and greet. Takes `memory`. Raises ConnectError, or what memory.open() raises."""
    attempt = attempt.within(options.connect_timeout)
    try:
        with contextlib.closing(side.connect(attempt)) as channel:
            return _greet(side, channel, address, options, attempt, memory, memory_refusal)
    except GreetingError as error:
        reason = f"the handshake failed: {error}"
        raise ConnectError(str(address), reason, passing=error.passing) from None
    except OSError as error:
        reason = f"the handshake failed: {error.strerror or error}"
        raise ConnectError(str(address), reason, passing=error.errno in _HUNG_UP) from error
    finally:
        if memory is not None:
            memory.close()


def _greet(
    side: ClientSide[C],
    channel: C,
    address: Address,
    options: Options,
    attempt: Attempt,
    memory: Memory | None,
    memory_refusal: str,
) -> Connection:
    if not side.identified_late:
        peer = _recognise(side, channel, options)
    offer: dict[str, Any] = {}
    if memory is not None:
        offer.update(ring_size=memory.ring_size, page_size=memory.page_size)
        if memory.names:
            offer.update(memory=memory.kind, memory_names=memory.names)
    features = frames.SHOWS_LOAD if side.takes_load and options.spread == "calls" else 0
    hello = make_hello(options, memory_refusal=memory_refusal, features=features, **offer)
    try:
        channel.send(hello_frame(hello), memory.fds if memory else [])
    except (BrokenPipeError, ConnectionResetError):
        pass  # It has closed the connection; its HELLO, if there is one, says why.
    with Descriptors() as fds:
        theirs = _await_hello(channel, side.alive(), attempt, fds)
        agree(hello, theirs)  # a refusal is trusted from any process
        if side.identified_late:
            peer = _recognise(side, channel, options)
        if memory is not None and not theirs.ring_size:
            memory_refusal = theirs.memory_refusal or "the server did not take it"
            memory = None
        load = None
        if theirs.features & features & frames.SHOWS_LOAD:
            from localrpc.transports.load import read_load

            load = read_load(fds.take_last())
        if memory is not None and (theirs.ring_size != memory.ring_size or len(fds) != 1):
            raise GreetingError("the server's HELLO does not match the memory offered")
        if memory is None and len(fds):
            raise GreetingError("the server's HELLO carries descriptors without memory")
        peer, pidfd = side.watch(channel, peer, theirs)
        fields: dict[str, Any] = {
            "peer": peer,
            "peer_name": side.peer_name,
            "hello": theirs,
            "load": load,
        }
        _wire.log(_log.TRACE, "%s: handshake with %s, %r", address, peer, theirs)
        if memory is None:
            link, facts = stream_link(channel, pidfd, address, memory_refusal)
            return Connection(link, facts, **fields)
        assert isinstance(channel, SocketChannel)
        facts = ConnectionFacts(address.scheme, memory.wakeup, None, memory.ring_size, memory.kind)
        sock = channel.sock.detach()
        link = memory.open(sock, pidfd, reachable_by_signal(peer, theirs), fds.take()[0])
        if theirs.features & frames.COUNTS_BEGUN:
            link.trust_begun()
        return Connection(link=link, facts=facts, **fields)


def _recognise(side: ClientSide[C], channel: C, options: Options) -> PeerCredentials:
    peer = side.identify(channel)
    if refusal := side.objection(peer, options):
        raise GreetingError(refusal)
    return peer


def _await_hello(
    channel: ByteChannel, alive: int | None, attempt: Attempt, fds: Descriptors
) -> Hello:
    greeter = Greeter(Role.CLIENT)
    poller = select.poll()
    poller.register(channel, select.POLLIN)
    if alive is not None:
        poller.register(alive, select.POLLIN)
    answers = True
    while True:
        try:
            data, received = channel.receive(greeter.wanted)
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
            "no HELLO from the server in time: it is stopped or busy, or not a localrpc server"
        )
    # It may have answered before it ended: read once more.
    return all(fd != alive for fd, _ in events)

"""The server's half of a handshake: identify the client, read its HELLO, answer."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeAlias

from localrpc import _log
from localrpc._core.links import Link
from localrpc.address import Address
from localrpc.errors import GreetingError, SpeaksHttp2
from localrpc.options import Options
from localrpc.transports.base import (
    Admission,
    Connection,
    ConnectionFacts,
    Greeting,
    PeerCredentials,
)
from localrpc.transports.byte_channels import ByteChannel, Descriptors
from localrpc.transports.credentials import refusal_of_client
from localrpc.transports.forks import forget_after_fork
from localrpc.transports.handshake import C, Watch, make_hello, stream_link
from localrpc.wire import frames
from localrpc.wire.codec import Hello
from localrpc.wire.greeting import Greeter, Role, agree, hello_frame
from localrpc.wire.http2 import Answerer

_wire = _log.logger("wire")

_STRANGERS_BYTES = 4096
_UNIMPLEMENTED = 12
"""gRPC's status for a client at the wrong server: it is not retried."""


def _describe(peer: PeerCredentials) -> str:
    return f"pid {peer.pid}" if peer.pid else f"a client of uid {peer.uid}"


def peer_name(peer: PeerCredentials) -> str:
    """Return a peer's name; always a unix: one, because grpc's tools split others at colons."""
    return f"unix:pid={peer.pid}"


def _objection(channel: ByteChannel, peer: PeerCredentials, options: Options) -> str | None:
    return refusal_of_client(peer, options)


def _as_listened(channel: ByteChannel, address: Address) -> str:
    return str(address)


class ServerSide(Generic[C]):
    """How a server identifies clients of one kind of channel, and makes connections of them."""

    def __init__(
        self,
        *,
        identify: Callable[[C], PeerCredentials],
        watch: Watch[C],
        objection: Callable[[C, PeerCredentials, Options], str | None] = _objection,
        welcome: Welcome[C] = lambda greeting, peer, hello: stay(greeting, peer, hello),
        peer_name: Callable[[PeerCredentials], str] = peer_name,
        dialled_as: Callable[[C, Address], str] = _as_listened,
        identified_late: bool = False,
        answers_http2: bool = False,
        single: bool = False,
    ) -> None:
        self.identify = identify
        """Identify the client, before a byte from it is trusted. Raises GreetingError."""
        self.watch = watch
        self.objection = objection
        """Why this client is not served; None if it is."""
        self.welcome = welcome
        """Answers with our HELLO and makes the connection; `greeting.fds` are the client's."""
        self.peer_name = peer_name
        """What a handler's context.peer() says."""
        self.dialled_as = dialled_as
        """What a client's target would be."""
        self.identified_late = identified_late
        """True if the HELLO is read before the client is identified, without being trusted."""
        self.answers_http2 = answers_http2
        """True if a grpcio client can connect here, and gets an answer in its own protocol."""
        self.single = single
        """True if the listener brings no other connection."""


class ServerGreeting(Greeting, Generic[C]):
    """One client during its handshake."""

    def __init__(
        self,
        channel: C,
        side: ServerSide[C],
        address: Address,
        options: Options,
        admission: Admission,
    ) -> None:
        self.deadline = time.monotonic() + options.greeting_timeout
        self.single = side.single
        self.address = address
        self.options = options
        self.channel = channel
        self._side = side
        self._admission = admission
        self._entered: int | None = None
        """The uid for which it was admitted, and has not left yet."""
        self.fds = Descriptors()
        self._peer: PeerCredentials | None = None
        self._greeter = Greeter(Role.SERVER)
        self._stranger: tuple[GreetingError, Answerer] | None = None
        forget_after_fork(self)

    def fileno(self) -> int:
        return self.channel.fileno()

    def advance(self) -> Connection | None:
        try:
            connection = self._advance()
        except BlockingIOError:
            return None
        except GreetingError as error:
            self.close()
            who = _describe(self._peer) if self._peer else "a client"
            cause = f"{self.address}: {error}"
            text = f"{self.address}: {who}: {error}"
            raise GreetingError(text, quiet=error.quiet, cause=cause) from None
        except OSError as error:
            self.close()
            reason = error.strerror or str(error)
            # A client may give up meanwhile, as one does whose call is cancelled.
            gave_up = isinstance(error, BrokenPipeError | ConnectionResetError)
            text = f"{self.address}: the handshake failed: {reason}"
            raise GreetingError(text, quiet=gave_up) from error
        except BaseException:
            self.close()
            raise
        self.close()
        return connection

    def _advance(self) -> Connection:
        hello = self._read()
        peer = self._recognise()
        try:
            agree(make_hello(self.options), hello)
        except GreetingError as error:
            self._refuse(f"the client does not match: {error}")
            raise
        _wire.log(_log.TRACE, "%s: handshake with %s, %r", self.address, peer, hello)
        return self._side.welcome(self, peer, hello)

    def _recognise(self) -> PeerCredentials:
        if self._peer is None:
            peer = self._peer = self._side.identify(self.channel)
            refusal = self._side.objection(self.channel, peer, self.options)
            if refusal := refusal or self._admission.enter(peer.uid):
                self._refuse(refusal)
                raise GreetingError(f"refused: {refusal}")
            self._entered = peer.uid
        return self._peer

    def _read(self) -> Hello:
        if not self._side.identified_late:
            self._recognise()
        while True:
            try:
                data, fds = self.channel.receive(self._greeter.wanted or _STRANGERS_BYTES)
            except ConnectionResetError:
                data, fds = b"", []
            self.fds.add(*fds)
            if self._stranger is not None:
                self._answer(data)
                continue
            if not data:
                raise self._greeter.receive_eof()
            try:
                hello = self._greeter.receive(data)
            except SpeaksHttp2 as error:
                if not self._side.answers_http2:
                    raise
                self._stranger = error, Answerer(_UNIMPLEMENTED, f"{self.address}: {error}")
                self._answer(data)
                continue
            if hello:
                return hello

    def _answer(self, data: bytes) -> None:
        """Tell a gRPC client in its own protocol; raises once it has gone, or its time is over."""
        assert self._stranger is not None
        error, answerer = self._stranger
        if not data:
            raise error
        try:
            answer = answerer.receive(data)
            if answer:
                self.channel.send(answer, [])
        except (ValueError, OSError):
            raise error from None

    def expired(self) -> str:
        if self._stranger is not None:
            return str(self._stranger[0])
        return "it sent no HELLO in time"

    def _refuse(self, reason: str, **fields: Any) -> None:
        # Best effort: the client may have gone, or may not keep the protocol.
        with contextlib.suppress(OSError):
            self.channel.send(hello_frame(make_hello(self.options, refusal=reason, **fields)), [])

    def connect_stream(self, peer: PeerCredentials, hello: Hello, refusal: str = "") -> Connection:
        """Keep the connection on its channel; `refusal` says why there is no memory."""
        with Descriptors() as watched:
            try:
                peer, pidfd = self._side.watch(self.channel, peer, hello)
            except GreetingError as error:
                raise self.refuse(str(error)) from None
            watched.add(pidfd)
            self.answer(hello, [], memory_refusal=refusal)
            watched.take()
        link, facts = stream_link(self.channel, pidfd, self.address, refusal)
        return self.connection(link, facts, peer, hello)

    def answer(self, hello: Hello, fds: list[int], features: int = 0, **fields: Any) -> None:
        """Send our HELLO, with these descriptors and that of our load, if the client takes it."""
        if hello.features & frames.SHOWS_LOAD and self._admission.load_fd >= 0:
            fds = [*fds, self._admission.load_fd]
            features |= frames.SHOWS_LOAD
        answer = make_hello(self.options, features=features, **fields)
        self.channel.send(hello_frame(answer), fds)

    def connection(
        self, link: Link, facts: ConnectionFacts, peer: PeerCredentials, hello: Hello
    ) -> Connection:
        """Return the admitted connection, which gives its place back when it is closed."""
        uid, self._entered = self._entered, None
        assert uid is not None, "only an admitted client becomes a connection"
        return Connection(
            link=link,
            facts=facts,
            peer=peer,
            peer_name=self._side.peer_name(peer),
            hello=hello,
            single=self._side.single,
            security=self._admission.security,
            leave=partial(self._admission.leave, uid),
        )

    def dialled_as(self) -> str:
        """Return the target that a client would use."""
        return self._side.dialled_as(self.channel, self.address)

    def refuse(self, reason: str) -> GreetingError:
        """Return the error for an invalid HELLO, after telling the client."""
        self._refuse(reason)
        return GreetingError(reason)

    def dismiss(self) -> None:
        # Without identifying it, or reading its HELLO: no client will be served.
        self._refuse("the server is stopping", going=True)
        self.close()

    def close(self) -> None:
        self.fds.close()
        self.channel.close()
        uid, self._entered = self._entered, None
        if uid is not None:
            self._admission.leave(uid)

    def forget(self) -> None:
        """Close in a forked child; the handshake continues in the parent."""
        self.fds.close()
        self.channel.forget()


Welcome: TypeAlias = Callable[[ServerGreeting[C], PeerCredentials, Hello], Connection]


def stay(greeting: ServerGreeting[C], peer: PeerCredentials, hello: Hello) -> Connection:
    """Calls travel on the channel of the handshake."""
    if hello.ring_size or len(greeting.fds):
        scheme = greeting.address.scheme
        raise greeting.refuse(
            f"it offers memory to a {scheme}: server; dial it as {greeting.dialled_as()}"
        )
    return greeting.connect_stream(peer, hello)

"""The server's side: a greeting for each who comes, on any medium, and a socket to listen at."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
import weakref
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, Generic, Protocol, TypeVar

from localrpc import _log
from localrpc.address import Address
from localrpc.errors import GreetingError, SpeaksHttp2
from localrpc.options import Options
from localrpc.transports import names
from localrpc.transports.base import (
    Connection,
    Greeting,
    Listener,
    PeerCredentials,
)
from localrpc.transports.credentials import (
    peer_credentials,
    peer_groups,
    refusal_of_client,
    watch_peer,
)
from localrpc.transports.greet import make_hello, stream_connection
from localrpc.transports.media import Descriptors, Medium, SocketMedium
from localrpc.wire.codec import Hello
from localrpc.wire.greeting import Greeter, Role, agree, hello_frame
from localrpc.wire.http2 import Answerer

_logger = _log.logger("transports")
_wire = _log.logger("wire")

_ACCEPT_BATCH = 64
_LAST_BATCHES = 64
_STRANGERS_BYTES = 4096
_UNIMPLEMENTED = 12
"""gRPC's status for who has come to the wrong server: nobody tries that again."""
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

M = TypeVar("M", bound=Medium)


class Inheritable(Protocol):
    """What holds descriptors of a door, and can close them without giving up its name."""

    def forget(self) -> None:
        """Called in a forked child."""


# What a forked child must not keep: with a listener inherited, the name would
# seem alive after the parent's death.
_inheritable: weakref.WeakSet[Inheritable] = weakref.WeakSet()


def forget_after_fork(door: Inheritable) -> None:
    """Have `door` closed in children of this process, but not given up."""
    _inheritable.add(door)


def _after_fork_in_child() -> None:
    for door in list(_inheritable):
        door.forget()


os.register_at_fork(after_in_child=_after_fork_in_child)


class MediumGreeting(Greeting, Generic[M]):
    """One client at the door; a subclass says who it is and what becomes of it."""

    answers_http2 = False
    """Whether a client of grpcio can come here, and is told in its own protocol."""
    identified_late = False
    """Whether its HELLO is read before it is asked who it is, but not believed."""

    def __init__(self, medium: M, address: Address, options: Options) -> None:
        self.deadline = time.monotonic() + options.greeting_timeout
        self.address = address
        self.options = options
        self.medium = medium
        self.fds = Descriptors()
        self._peer: PeerCredentials | None = None
        self._greeter = Greeter(Role.SERVER)
        self._stranger: tuple[GreetingError, Answerer] | None = None
        forget_after_fork(self)

    def fileno(self) -> int:
        return self.medium.fileno()

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
            raise GreetingError(f"{self.address}: the greeting failed: {reason}") from error
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
            self._refuse(f"the client is no match: {error}")
            raise
        _wire.log(_log.TRACE, "%s: greeted by %s, %r", self.address, peer, hello)
        return self.welcome(peer, hello)

    def _recognise(self) -> PeerCredentials:
        if self._peer is None:
            self._peer = self.identify()
            uid = self._peer.uid
            if refusal := self.objection(self._peer) or self.enter(uid):
                self._refuse(refusal)
                raise GreetingError(f"refused: {refusal}")
            self.entered = uid
        return self._peer

    def _read(self) -> Hello:
        if not self.identified_late:
            self._recognise()
        while True:
            try:
                data, fds = self.medium.receive(self._greeter.wanted or _STRANGERS_BYTES)
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
                if not self.answers_http2:
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
                self.medium.send(answer, [])
        except (ValueError, OSError):
            raise error from None

    def expired(self) -> str:
        return super().expired() if self._stranger is None else str(self._stranger[0])

    def _refuse(self, reason: str, **fields: Any) -> None:
        # A courtesy: the client may be gone, or be no friend of the protocol.
        with contextlib.suppress(OSError):
            self.medium.send(hello_frame(make_hello(self.options, refusal=reason, **fields)), [])

    @abstractmethod
    def identify(self) -> PeerCredentials:
        """Who has come; asked before a byte of it is believed."""

    def objection(self, peer: PeerCredentials) -> str | None:
        """Why this client is not served; None if it is."""
        return refusal_of_client(peer, self.options, lambda: self.groups(peer))

    def groups(self, peer: PeerCredentials) -> Iterable[int]:
        """The groups of a client beside its first."""
        return ()

    @abstractmethod
    def watch(self, peer: PeerCredentials, hello: Hello) -> tuple[PeerCredentials, int]:
        """What is known of the client by now, and a pidfd, or -1."""

    def peer_name(self, peer: PeerCredentials) -> str:
        """What a handler's context.peer() says."""
        return peer_name(peer)

    def welcome(self, peer: PeerCredentials, hello: Hello) -> Connection:
        """Answer with our HELLO and make the connection; `self.fds` are the client's."""
        if hello.ring_size or len(self.fds):
            scheme = self.address.scheme
            raise self.refuse(
                f"it offers memory to a {scheme}: server; dial it as {self.dialled_as()}"
            )
        return self.connect_stream(peer, hello)

    def dialled_as(self) -> str:
        """What a client's target would be."""
        return str(self.address)

    def connect_stream(self, peer: PeerCredentials, hello: Hello, refusal: str = "") -> Connection:
        """The connection stays on its medium; `refusal` says why there is no memory."""
        with Descriptors() as watched:
            peer, pidfd = self.watch(peer, hello)
            watched.add(pidfd)
            self.medium.send(hello_frame(make_hello(self.options, memory_refusal=refusal)), [])
            watched.take()
        return stream_connection(
            self.medium,
            pidfd,
            self.address,
            refusal,
            peer=peer,
            peer_name=self.peer_name(peer),
            hello=hello,
        )

    def refuse(self, reason: str) -> GreetingError:
        """The error to raise for a HELLO that is the client's mistake; the client hears of it."""
        self._refuse(reason)
        return GreetingError(reason)

    def dismiss(self) -> None:
        # Without a look at who it is, or at its HELLO: nobody will be served.
        self._refuse("the server is stopping", going=True)
        self.close()

    def close(self) -> None:
        self.fds.close()
        self.medium.close()

    def forget(self) -> None:
        """In a forked child: the greeting goes on in the parent."""
        self.fds.close()
        self.medium.forget()


class SocketGreeting(MediumGreeting[SocketMedium]):
    """One client at a socket: a Unix one, if a subclass does not say otherwise."""

    answers_http2 = True

    def dialled_as(self) -> str:
        if self.address.scheme != "fd":
            return super().dialled_as()
        name = self.medium.sock.getsockname()
        if isinstance(name, bytes):
            return f"unix-abstract:{os.fsdecode(name[1:])}"
        return f"unix:{name}" if name else "fd:N, its own end of the pair"

    def identify(self) -> PeerCredentials:
        return peer_credentials(self.medium.sock)

    def groups(self, peer: PeerCredentials) -> Iterable[int]:
        return peer_groups(self.medium.sock)

    def watch(self, peer: PeerCredentials, hello: Hello) -> tuple[PeerCredentials, int]:
        return watch_peer(self.medium.sock, peer, hello.pid)


def _describe(peer: PeerCredentials) -> str:
    return f"pid {peer.pid}" if peer.pid else f"a client of uid {peer.uid}"


def peer_name(peer: PeerCredentials) -> str:
    """The kind is unix whatever the scheme: grpc's tools split any other at its colons."""
    return f"unix:pid={peer.pid}"


class SocketListener(Listener):
    """A listening socket, with a name to give back (a path) or without."""

    def __init__(
        self,
        address: Address,
        options: Options,
        sock: socket.socket,
        greeting: type[SocketGreeting],
        path: str | None = None,
        identity: names.Identity = (0, 0),
        *,
        shared: bool = False,
    ) -> None:
        """`shared`: other processes have the socket, too, and can take who waits at it."""
        self.address = address
        self._options = options
        self._sock = sock
        self._greeting = greeting
        self._path = path
        self._identity = identity
        self._shared = shared
        # Given up for a moment when the process has no descriptor left, so that
        # who waits at the door is turned away instead of waking us for ever.
        self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._starved = False
        forget_after_fork(self)

    def fileno(self) -> int:
        return self._sock.fileno()

    def accept(self) -> list[Greeting]:
        greetings: list[Greeting] = []
        while len(greetings) < _ACCEPT_BATCH:
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
            greetings.append(self._greeting(SocketMedium(sock), self.address, self._options))
        return greetings

    def _turn_away(self, error: OSError) -> bool:
        """Whether somebody was there: without a descriptor left, accept() does not say."""
        if not self._starved:
            self._starved = True
            _logger.warning(
                "%s: clients are turned away: %s; raise the limit (ulimit -n)",
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
        path, self._path = self._path, None
        if path is not None:
            # Before the socket is closed: its inode must not be somebody else's.
            names.give_back(path, self._identity)
        # Who has connected and is still in the backlog: so many, should more keep coming.
        for _ in range(0 if self._shared else _LAST_BATCHES):
            waiting = self.accept()
            for greeting in waiting:
                greeting.dismiss()
            if not waiting:
                break
        self.forget()

    def forget(self) -> None:
        """Close without giving back the name: in a forked child it is the parent's."""
        self._path = None
        self._sock.close()
        spare, self._spare = self._spare, -1
        if spare >= 0:
            os.close(spare)

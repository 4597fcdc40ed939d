"""What a transport does: it listens, connects, does the handshake, and passes the link to the core.

A transport owns every descriptor until its link takes it over, and leaves none
behind when anything fails.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

from localrpc._core.links import Link
from localrpc.address import Address
from localrpc.options import Options
from localrpc.transports.attempt import Attempt
from localrpc.transports.names import BoundSocket, Permissions
from localrpc.transports.scheme import Scheme
from localrpc.wire.codec import Hello


class PeerCredentials(NamedTuple):
    """The process at the other end, as the kernel reports it: `pid`, `uid`, `gid`, `groups`.

    Unknown values are 0 for the pid, -1 for the uid and the gid, and empty for the groups.
    """

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    """Further groups of the process, if its socket tells them. Not compared."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PeerCredentials) and self[:3] == other[:3]

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self[:3])


class ConnectionFacts(NamedTuple):
    """How a connection really travels.

    A shm: connection stays on its socket where there is no shared memory: then `fell_back` says
    why, and `ring_size` is 0.
    """

    transport: str
    """The scheme of its target."""
    wakeup: str
    """What wakes this side's readers, such as "eventfd", or "socket"."""
    fell_back: str | None = None
    ring_size: int = 0
    """Bytes of each of its two rings."""
    memory: str = ""
    """What the rings are made of, such as "memfd"; empty without rings."""


def _nothing() -> None:
    pass


class Connection:
    """A connection after its handshake. `link` owns the descriptors."""

    def __init__(
        self,
        link: Link,
        facts: ConnectionFacts,
        peer: PeerCredentials,
        peer_name: str,
        hello: Hello,
        *,
        single: bool = False,
        security: str = "insecure",
        leave: Callable[[], object] = _nothing,
        load: Sequence[int] | None = None,
    ) -> None:
        self.link = link
        self.facts = facts
        self.peer = peer
        self.peer_name = peer_name
        self.hello = hello
        self.single = single
        """True if its listener brings no other connection."""
        self.security = security
        """By grpcio's name for it; "local" if the server's port has local credentials."""
        self.leave = leave
        """Called once, when it is closed."""
        self.load = load
        """What the server says of its load, as it is when it is read; see transports/load.py."""

    def close(self) -> None:
        """Close the link, unless an engine has taken it over. Idempotent."""
        leave, self.leave = self.leave, _nothing
        leave()
        self.link.close()


def _admit_all(uid: int) -> str | None:
    return None


def _forget_it(uid: int) -> None:
    pass


class Admission(NamedTuple):
    """Decides which clients of a listener become connections."""

    enter: Callable[[int], str | None] = _admit_all
    """Called once for each client whose user is allowed: returns why it is refused now, or None."""
    leave: Callable[[int], None] = _forget_it
    """Called once for each admitted client: it has been refused, or its connection has ended."""
    security: str = "insecure"
    """The security of its connections, by grpcio's name."""
    load_fd: int = -1
    """The server's load, for clients that choose among workers; -1: it says nothing of it."""


EVERYBODY = Admission()


class Greeting(ABC):
    """A client that has connected, before the end of its handshake."""

    deadline: float
    """On time.monotonic()'s clock; past it, close()."""
    single = False
    """True if its listener brings no other connection."""

    @abstractmethod
    def fileno(self) -> int:
        """Readable when advance() has something to do."""

    @abstractmethod
    def advance(self) -> Connection | None:
        """Return the connection, or None if more bytes are needed; never blocks.

        Raises GreetingError, with everything closed, when this client will not
        become a connection; the listener goes on.
        """

    @abstractmethod
    def expired(self) -> str:
        """Return why it is refused when its deadline has passed."""

    @abstractmethod
    def close(self) -> None:
        """Give up on this client; idempotent."""

    @abstractmethod
    def dismiss(self) -> None:
        """close(), and tell the client that this server is stopping; never blocks."""


class Listener(ABC):
    """A name that clients can dial."""

    address: Address
    port: int = 1
    """What add_insecure_port() returns: the port where there is one, else grpcio's 1."""
    activated = False
    """True if a service manager that may wait for READY passed it to this process."""

    @abstractmethod
    def fileno(self) -> int:
        """Readable when accept() has something to do."""

    @abstractmethod
    def accept(self) -> list[Greeting]:
        """Return all clients that wait; never blocks, and never raises because of one of them."""

    def tidy(self) -> bool:
        """Clear up after clients that were killed before they were accepted; never blocks.

        Called repeatedly for a while after a client has come or gone, as long as it returns
        True: then a client is still connecting, and may be killed.
        """
        return False

    @abstractmethod
    def close(self) -> None:
        """Stop listening and remove the name if it is still ours; idempotent."""


class Dialer(ABC):
    """Connects a channel to its server. One thread dials at a time."""

    single = False
    """True if it makes one connection only."""
    explains = False
    """True if it may know why a connection has ended: see why_lost()."""

    @abstractmethod
    def dial(self, attempt: Attempt) -> Connection:
        """Connect and greet, blocking as long as `attempt` allows.

        Raises ConnectError, which names the target, the reason and the fix.
        """

    def close(self) -> None:  # noqa: B027
        """Note that the channel is closed. Idempotent."""

    def why_lost(self, patience: float) -> str:
        """Return why its connection has ended; empty if that does not become known soon.

        Blocks, for `patience` seconds at most.
        """
        return ""

    def forget_taken(self) -> None:  # noqa: B027
        """Forget, in a forked child, a connection that dial() was giving to a parent thread."""


class Redialer(Dialer):
    """Connects anew each time, and keeps nothing in between."""

    def __init__(self, dial: Callable[[Attempt], Connection]) -> None:
        self._dial = dial

    def dial(self, attempt: Attempt) -> Connection:
        return self._dial(attempt)


class Transport(Scheme, ABC):
    """One scheme. Stateless: one instance serves all threads."""

    def closed_to_others(self, address: Address) -> str | None:
        """Return why other users cannot connect there, whatever the options; None if they can."""
        return (
            f"{self.scheme}: is for one user, and the options allow others in; serve them at"
            " unix:PATH, unix-abstract:NAME, shm:/PATH or tcp:HOST:PORT"
        )

    @abstractmethod
    def listen(
        self, address: Address, options: Options, admission: Admission = EVERYBODY
    ) -> Listener:
        """Raises ListenError, or AddressInUse when a live server has the name."""

    def bind(self, address: Address, options: Options) -> BoundSocket | None:
        """Return a listening socket that other processes can serve as `fd:`, with the options of
        the target; None if this kind of target has no such socket.

        Raises ListenError, or AddressInUse when a live server has the name.
        """
        return None

    def worker_address(self, address: Address, number: int) -> Address | None:
        """Return where worker `number` of a group that serves `address` listens alone; None if
        workers have no places of their own there."""
        return None

    def bind_file(self, address: Address, permissions: Permissions) -> BoundSocket | None:
        """As bind(), with the permissions of the socket's file; None if it is not a file."""
        return None

    @abstractmethod
    def dialer(self, address: Address, options: Options) -> Dialer:
        """Return a dialer for one channel. Raises AddressError if no channel can use the target."""

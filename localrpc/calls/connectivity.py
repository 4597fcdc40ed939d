"""The connectivity state of a channel and its backoff, without dialling or waiting.

Keeps the state, its subscribers, and whether a connection is wanted, and decides after a failed
attempt whether a call fails or how long it pauses. No function here takes a lock or reads a
clock: the time is an argument, in seconds of time.monotonic().
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Any

from localrpc._later import Later
from localrpc.errors import ConnectError

if TYPE_CHECKING:
    import grpc

    from localrpc.calls import texts
else:
    grpc = Later("grpc")
    texts = Later("localrpc.calls.texts")

Subscriber = Callable[["grpc.ChannelConnectivity"], None]
News = list[Callable[[], Any]]
"""Calls to make, in this order, on another thread."""


class State(Enum):
    """grpc.ChannelConnectivity by the same names, which only subscribers need."""

    IDLE = auto()
    CONNECTING = auto()
    READY = auto()
    TRANSIENT_FAILURE = auto()
    SHUTDOWN = auto()

    def tell(self, subscriber: Subscriber) -> None:
        subscriber(grpc.ChannelConnectivity[self.name])


class NotReady(Exception):
    """There is no session, and the call that wanted one ends.

    Raised with a lock held, under which nothing is imported: `ending` is asked later.
    """

    def __init__(self, failure: ConnectError | None = None, *, wanted: bool = True) -> None:
        """`failure` is why; None: its deadline has passed, or it is not `wanted` any more."""
        super().__init__(failure)
        self._failure = failure
        self._wanted = wanted

    @property
    def ending(self) -> tuple[grpc.StatusCode, str]:
        """The call's status."""
        if not self._wanted:
            return texts.LOCALLY_CANCELLED
        if self._failure is None:
            return texts.DEADLINE_EXCEEDED
        return grpc.StatusCode[self._failure.code], str(self._failure)


class Backoff:
    """Pauses between attempts in seconds, each twice as long as the previous one."""

    def __init__(self, initial: float, most: float) -> None:
        self._next = initial
        self._most = most

    def next(self) -> float:
        pause = min(self._next, self._most)
        self._next = min(pause * 2, self._most)
        return pause


class Connectivity:
    """The state of a channel, its subscribers, and whether they want a connection.

    `failure` is the error of the last attempt, None if that did not fail.
    """

    def __init__(self) -> None:
        self.state = State.IDLE
        self.dialling = False
        self.failure: ConnectError | None = None
        self._subscribers: list[tuple[Subscriber, list[State]]] = []
        self._wanted = False
        """A subscriber has asked for a connection, and there has been none since."""
        self._background = False
        """A thread connects on behalf of the subscribers."""

    # Attempts

    def begin(self) -> News:
        """Note that an attempt begins."""
        self.dialling = True
        return self._move(State.CONNECTING)

    def connected(self) -> News:
        self.dialling = False
        self.failure = None
        # The wish for a connection is fulfilled: losing it does not start a new attempt.
        self._wanted = False
        return self._move(State.READY)

    def failed(self, failure: ConnectError | None) -> News:
        """Note a failure; None if one call's deadline cut the attempt short, so others go on."""
        self.dialling = False
        self.failure = failure
        return self._move(State.TRANSIENT_FAILURE)

    def lost(self) -> News:
        """Note that the connection can no longer be used."""
        return self._move(State.IDLE)

    def closed(self) -> list[Subscriber]:
        """Note that the channel is closed, which is final; remove and return its subscribers.

        As in grpcio, they are not notified.
        """
        removed = self.unsubscribe_all()
        self._move(State.SHUTDOWN)
        return removed

    @property
    def hopeless(self) -> bool:
        """True if another attempt would fail for the same reason."""
        return self.failure is not None and self.failure.final

    def check(self, now: float, until: float | None, *, wait_for_ready: bool) -> None:
        """Raises NotReady if a call with deadline `until` ends with the failed attempt."""
        expired = until is not None and now >= until
        if wait_for_ready and not self.hopeless and not expired:
            return
        # Whatever has failed, a deadline came first.
        raise NotReady(None if expired else self.failure)

    # Subscribers

    @property
    def subscribed(self) -> bool:
        return bool(self._subscribers)

    @property
    def subscribers(self) -> list[Subscriber]:
        return [callback for callback, _ in self._subscribers]

    def subscribe(self, callback: Subscriber, *, try_to_connect: bool) -> News:
        """Add a subscriber, which is called with the present state first, then with each change."""
        self._subscribers.append((callback, [self.state]))
        self._wanted |= try_to_connect
        return [partial(self.state.tell, callback)]

    def unsubscribe(self, callback: Subscriber) -> Subscriber | None:
        """Remove a subscriber and return it: its last reference may call a user's finalizer."""
        for index, (known, _) in enumerate(self._subscribers):
            if known == callback:
                del self._subscribers[index]
                return known
        return None

    def unsubscribe_all(self) -> list[Subscriber]:
        """Remove all subscribers and return them."""
        removed = self.subscribers
        self._subscribers.clear()
        return removed

    def starts_connecting(self) -> bool:
        """Return True if a thread has to be started that connects on behalf of the subscribers."""
        starts = not self._background and (self._wanted or self.state is State.READY)
        self._background |= starts
        return starts

    def goes_on_connecting(self) -> bool:
        """Return True if that thread has to make an attempt now; False ends the thread."""
        idle = self.state is State.IDLE and not self._wanted
        if not self._subscribers or self.state in (State.READY, State.SHUTDOWN) or idle:
            self._background = False
            return False
        self._wanted = False
        return True

    def has_connected(self) -> bool:
        """Return True if that thread is done after its attempt."""
        self._background = self.state is not State.READY and not self.hopeless
        return not self._background

    def _move(self, state: State) -> News:
        if self.state is State.SHUTDOWN:
            return []
        self.state = state
        news: News = []
        for callback, told in self._subscribers:
            if told[0] is not state:
                told[0] = state
                news.append(partial(state.tell, callback))
        return news

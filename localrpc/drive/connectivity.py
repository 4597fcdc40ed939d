"""How a channel comes to a connection, apart from the dialling and the waiting.

What state it is in and who is told of that, whether somebody wants a connection, and after a
failed attempt whether a call gives up or for how long it pauses. Nothing here takes a lock or
looks at a clock: the time is an argument, in seconds of time.monotonic().
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import grpc

from localrpc.drive.texts import DEADLINE_EXCEEDED
from localrpc.errors import ConnectError

State = grpc.ChannelConnectivity
Subscriber = Callable[[grpc.ChannelConnectivity], None]
News = list[Callable[[], Any]]
"""Calls to be made, in this order, on another thread."""


class NotReady(Exception):
    """There is no session, and the call that wanted one ends with this status."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class Backoff:
    """Pauses between attempts, each twice as long as the last, in seconds."""

    def __init__(self, initial: float, most: float) -> None:
        self._next = initial
        self._most = most

    def next(self) -> float:
        pause = min(self._next, self._most)
        self._next = min(pause * 2, self._most)
        return pause


class Connectivity:
    """A channel's state, the callbacks that subscribe to it, and who wants a connection.

    `failure` is what the last attempt met, None if it was not a failure.
    """

    def __init__(self) -> None:
        self.state = State.IDLE
        self.dialling = False
        self.failure: ConnectError | None = None
        self._subscribers: list[tuple[Subscriber, list[State]]] = []
        self._wanted = False
        """A subscriber has asked for a connection, and there has been none since."""
        self._background = False
        """A thread connects for the subscribers' sake."""

    # Attempts

    def begin(self) -> News:
        """An attempt begins."""
        self.dialling = True
        return self._move(State.CONNECTING)

    def connected(self) -> News:
        self.dialling = False
        self.failure = None
        # Who wanted a connection has had one: its loss starts no other.
        self._wanted = False
        return self._move(State.READY)

    def failed(self, failure: ConnectError | None) -> News:
        """None: it was given up for one call's deadline, which is no reason for others to fail."""
        self.dialling = False
        self.failure = failure
        return self._move(State.TRANSIENT_FAILURE)

    def lost(self) -> News:
        """The connection is of no use any more."""
        return self._move(State.IDLE)

    def closed(self) -> News:
        """The channel is: its subscribers hear nothing of that, as in grpcio."""
        self._subscribers.clear()
        return self._move(State.SHUTDOWN)

    @property
    def hopeless(self) -> bool:
        """Whether another attempt would meet the same."""
        return self.failure is not None and self.failure.final

    def verdict(
        self, now: float, until: float | None, *, wait_for_ready: bool
    ) -> tuple[grpc.StatusCode, str] | None:
        """How a call with deadline `until` ends after a failed attempt; None: it goes on."""
        expired = until is not None and now >= until
        if wait_for_ready and not self.hopeless and not expired:
            return None
        if self.failure is None or expired:  # whatever has failed, a deadline came first
            return DEADLINE_EXCEEDED
        return grpc.StatusCode[self.failure.code], str(self.failure)

    # Subscribers

    @property
    def subscribed(self) -> bool:
        return bool(self._subscribers)

    @property
    def subscribers(self) -> list[Subscriber]:
        return [callback for callback, _ in self._subscribers]

    def subscribe(self, callback: Subscriber, *, try_to_connect: bool) -> News:
        """It hears the present state first, then every change."""
        self._subscribers.append((callback, [self.state]))
        self._wanted |= try_to_connect
        return [partial(callback, self.state)]

    def unsubscribe(self, callback: Subscriber) -> None:
        for index, (known, _) in enumerate(self._subscribers):
            if known == callback:
                del self._subscribers[index]
                return

    def unsubscribe_all(self) -> None:
        self._subscribers.clear()

    def starts_connecting(self) -> bool:
        """Whether a thread has to begin to connect for the subscribers, from now on or later."""
        starts = not self._background and (self._wanted or self.state is State.READY)
        self._background |= starts
        return starts

    def goes_on_connecting(self) -> bool:
        """For that thread: whether to make an attempt now; False ends it."""
        idle = self.state is State.IDLE and not self._wanted
        if not self._subscribers or self.state in (State.READY, State.SHUTDOWN) or idle:
            self._background = False
            return False
        self._wanted = False
        return True

    def has_connected(self) -> bool:
        """For that thread, after its attempt: whether it is done."""
        self._background = self.state is not State.READY and not self.hopeless
        return not self._background

    def _move(self, state: State) -> News:
        self.state = state
        news: News = []
        for callback, told in self._subscribers:
            if told[0] is not state:
                told[0] = state
                news.append(partial(callback, state))
        return news

"""One call as a client drives it: the thread that needs a result reads it.

There is no reader thread. The thread that asks for a message, the status or a result reads in
the core and passes what it finds to the call's state; other threads that ask for the same call
wait for it. A call with done callbacks is watched by its session.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from time import monotonic_ns
from typing import Any, NamedTuple

import grpc

from localrpc import status
from localrpc.calls.keeping import Kept
from localrpc.calls.messages import deserialize
from localrpc.calls.state import CallState, Then
from localrpc.calls.texts import (
    CHANNEL_CLOSED,
    COLLECTED,
    DEADLINE_EXCEEDED,
    debug_text,
    no_memory,
)
from localrpc.drive.connector import ChannelClosed, Connector
from localrpc.drive.core import NEVER, NOW, blank, lib, patience
from localrpc.drive.finalizers import run_later
from localrpc.drive.reading import fill, receive
from localrpc.drive.session import Session
from localrpc.metadata import Pairs

_unchanging: Any = threading.RLock()
"""The lock of all calls that are complete from the start."""


class Live(NamedTuple):
    """The session and handle of a live call, in one object, because a handle alone is ambiguous."""

    session: Session
    handle: int


class ClientCall:
    """A client's call, shared by the API's call object, its request sender and its watcher.

    `state` is the call's state. `_lock`, its channel's, guards it and the attributes
    set after it. Once the call has ended, `live` and `connector` are None, so that a finished call
    keeps no connection open. Code that reads one of them without the lock reads it once, into a
    local variable.
    """

    def __init__(
        self,
        connector: Connector,
        method: str,
        deserialize: Callable[[bytes], Any] | None,
        *,
        deadline: int,
        streams: bool,
    ) -> None:
        self.connector: Connector | None = connector
        self.method = method
        self.deadline = deadline
        self.state = CallState(connector.metadata_limits, streams=streams)
        self._deserialize = deserialize
        self.streams = streams
        """It has a stream of answers."""
        self._lock = connector.call_lock
        self._changed = threading.Condition(self._lock)
        self.live: Live | None = None
        self._callbacks: list[Callable[[], object]] | None = []
        self._reading = False
        self._watched = False
        self._partial: bytes | None = None
        self.reopen: Callable[[ClientCall, Session], None] | None = None
        """Set while the call can be opened again if no server has seen it."""
        self.kept: Kept | None = None
        """What has been sent of a stream of requests, while the call can be opened again."""
        self._sending = _unchanging
        """Held to send while requests are kept: by their sender, or to send these again."""
        self._sent_on: Live | None = None
        """Where the kept requests have been sent."""

    @classmethod
    def over(cls, method: str, response: Any, initial: Pairs, trailing: Pairs) -> ClientCall:
        """Return a call that has ended with OK; it is small, because it never changes."""
        call = cls.__new__(cls)
        call.connector = None
        call.method = method
        call.deadline = NEVER
        call.state = CallState.over(response, initial, trailing)
        call._lock = _unchanging
        call.live = None
        call._callbacks = None
        return call

    def keep_requests(self) -> None:
        """Keep what will be sent, until a server has seen the call."""
        self.kept = Kept()
        self._sending = threading.Lock()

    def running(self) -> bool:
        return self.state.code is None

    def ended(self) -> bool:
        return self.state.code is not None

    # Beginning

    def adopt(self, session: Session, handle: int) -> None:
        """Note that the call is live in the core as `handle`; release it if the call has ended."""
        with self._lock:
            if self.state.code is not None:
                lib.lr_release(session.engine, handle)
                return
            self.live = Live(session, handle)
            session.count(streams=self.streams)
            self._changed.notify_all()
            watch = self._watched
        if watch:
            session.watch(handle, self.deadline, self.poll)

    def _start_over(self, live: Live) -> None:
        """Open the call again, as no server has seen it. Only for the thread that reads."""
        with self._lock:
            reopen = self.reopen
            if reopen is None:
                return  # it has ended meanwhile
            self.live = None
        live.session.count(-1, streams=self.streams)
        lib.lr_release(live.session.engine, live.handle)
        try:
            reopen(self, live.session)
        except ChannelClosed:
            self.end(*CHANNEL_CLOSED)
        self._catch_up()

    # Sending

    def send(self, message: bytes, *, wait: bool = True) -> bool | None:
        """Send a message. Return True if more may be sent.

        Return None, having sent nothing, if sending would block and `wait` is False.
        """
        kept = self.kept
        if kept is not None:
            with self._sending:
                more = self._send_and_keep(kept, message, wait=wait)
            self._catch_up()
            return more
        live = self.live
        if live is None:
            return False
        engine, handle = live.session.engine, live.handle
        limit = self.deadline if wait else NOW
        result = lib.LR_AGAIN
        while result == lib.LR_AGAIN:
            result = lib.lr_send(engine, handle, message, len(message), 0, limit)
        if result == lib.LR_TIMEOUT:
            if not wait:
                return None
            self.poll()
        return bool(result == 0)

    def half_close(self) -> None:
        kept = self.kept
        if kept is None:
            live = self.live
            if live is not None:
                lib.lr_half_close(live.session.engine, live.handle)
            return
        with self._sending:
            kept.closed = True
            live = self.live
            if live is not None and (live is self._sent_on or not kept.messages):
                self._sent_on = live
                lib.lr_half_close(live.session.engine, live.handle)
        self._catch_up()

    # Sending again what no server has seen

    def _send_and_keep(self, kept: Kept, message: bytes, *, wait: bool) -> bool | None:
        """Send a message as send(), on whatever session the call is live."""
        while True:
            live = self.live
            result = lib.LR_ENDED
            if live is not None and self._resend(kept, live):
                result = self._put(live, message, self.deadline if wait else NOW)
            if result == 0:
                if not kept.add(message):
                    self.reopen = None
                self._forget_seen()
                return True
            if not wait:
                return None
            if result == lib.LR_TIMEOUT:
                self.poll()
                return False
            # It has ended there: what follows says how, and it may begin again.
            self.wait(lambda: self.ended() or self.live is not live or self.kept is None)  # noqa: B023
            if self.ended() or self.live is live:
                return False

    def _put(self, live: Live, message: bytes, limit: int) -> int:
        result = lib.LR_AGAIN
        while result == lib.LR_AGAIN:
            result = lib.lr_send(live.session.engine, live.handle, message, len(message), 0, limit)
        return int(result)

    def _resend(self, kept: Kept, live: Live) -> bool:
        """Send what is kept, unless it has been sent on `live`. Return False if that has ended."""
        if live is not self._sent_on:
            for message in list(kept.messages):
                if self._put(live, message, self.deadline):
                    return False
            if kept.closed:
                lib.lr_half_close(live.session.engine, live.handle)
            self._sent_on = live
            self._forget_seen()
        return True

    def _forget_seen(self) -> None:
        """Free what is kept of a call that a server has seen."""
        with self._lock:
            if self.reopen is None and not self._is_behind():
                self.kept = None

    def _catch_up(self) -> None:
        """Send what is kept on a new session, unless another thread does."""
        while self._is_behind() and (kept := self.kept) is not None:
            if not self._sending.acquire(blocking=False):
                return  # the thread that holds it checks again after its release
            try:
                live = self.live
                if live is not None and not self._resend(kept, live):
                    return  # who reads finds out why
            finally:
                self._sending.release()

    def _is_behind(self) -> bool:
        """Return True if the call is live where what is kept has not been sent."""
        kept, live = self.kept, self.live
        if kept is None or live is None or live is self._sent_on:
            return False
        return self._sent_on is not None or kept.closed

    # Ending

    def end(
        self,
        code: grpc.StatusCode,
        details: str,
        *,
        debug: str | None = None,
        cancelled: bool = False,
    ) -> bool:
        """End the call here and, if it is still live, at the peer. Return False if it had ended.

        A deadline that has passed takes precedence over this end, and a status that has arrived
        takes precedence over the deadline.
        """
        if code is not grpc.StatusCode.DEADLINE_EXCEEDED and self._late():
            self.poll()
        with self._lock:
            then = self.state.end(code, details, debug=debug, cancelled=cancelled)
            left = self._part(then)
        if left is not None:
            left.go()
        return left is not None

    def abandon(self) -> None:
        """End the call because its API object is garbage. For a finalizer: takes no lock."""
        if self.state.code is not None:
            return
        if self.live is None or self._watched:
            # Another thread may be using it.
            run_later(partial(self.end, *COLLECTED, cancelled=True))
            return
        left = self._part(self.state.end(*COLLECTED, cancelled=True))
        if left is not None:
            left.go()

    def _part(self, then: Then) -> _Left | None:
        """Detach everything from a call that has just ended, and return what is left to do.

        Return None if the call goes on.
        """
        if then is Then.GO_ON:
            return None
        left = _Left(self, then)
        self.connector = self.live = self._callbacks = self.reopen = self.kept = None
        return left

    def add_callback(self, callback: Callable[[], object]) -> bool:
        """Add a callback. Return False if the call has ended: then the caller runs it."""
        with self._lock:
            if self._callbacks is None:
                return False
            self._callbacks.append(callback)
            if self._watched:
                return True
            self._watched = True
            live = self.live
        if live is not None:
            live.session.watch(live.handle, self.deadline, self.poll)
        return True

    # Reading

    def wait(self, done: Callable[[], bool], until: int = NEVER) -> bool:
        """Read until `done()`, called under the lock, is true; return False at the time `until`."""
        while (came := self._step(done, until)) is not _Step.DONE:
            if came is _Step.NOTHING and self._late():
                self.poll()
            elif until != NEVER and monotonic_ns() >= until:
                with self._lock:
                    return done()
        return True

    def poll(self) -> None:
        """Process what has arrived, without waiting; end the call if its deadline has passed."""
        while self._step(self._enough, NOW) is _Step.CAME:
            pass
        if self._late():
            self.end(*DEADLINE_EXCEEDED, debug=debug_text(*DEADLINE_EXCEEDED))

    def _enough(self) -> bool:
        """Return True if poll() can stop: there is something to take, or another thread reads."""
        return self.ended() or self._reading or bool(self.state.messages)

    def _late(self) -> bool:
        """Return True if the deadline has passed and the call has not ended."""
        return self.deadline != NEVER and self.running() and monotonic_ns() >= self.deadline

    def _step(self, done: Callable[[], bool], until: int) -> _Step:
        """Wait for one event: read it, or wait for the thread that reads."""
        limit = self.deadline
        if until != NEVER and (limit == NEVER or until < limit):
            limit = until
        mine = False
        try:
            with self._lock:
                if done():
                    return _Step.DONE
                live = self.live
                if self._reading and live is not None and live.session.inherited:
                    self._reading = False  # the reading thread stayed in the parent
                if self._reading or live is None or self.state.messages:
                    if until == NOW:
                        return _Step.NOTHING
                    left = None if limit == NEVER else max((limit - monotonic_ns()) / 1e9, 0)
                    return _Step.CAME if self._changed.wait(patience(left)) else _Step.NOTHING
                mine = self._reading = True  # in this order: an interrupt may come in between
            return self._read_one(live, limit)
        finally:
            if mine:
                with self._lock:
                    self._reading = False
                    self._changed.notify_all()

    def _read_one(self, live: Live, limit: int) -> _Step:
        """Read one event, as the only thread that reads."""
        kind, content = self._read(live, limit)
        if kind == lib.LR_TIMEOUT:
            return _Step.NOTHING
        if kind == lib.LR_UNSENT and self.reopen is not None:
            self._start_over(live)
            return _Step.CAME
        with self._lock:
            self.reopen = None  # the peer has seen the call, so its request can be freed
            if self.kept is not None and not self._is_behind():
                self.kept = None
            left = self._part(self._take(kind, content))
        if left is not None:
            left.go()
        return _Step.CAME

    def _take(self, kind: int, content: Any) -> Then:
        state = self.state
        if kind == lib.LR_K_MESSAGES:
            return state.take_messages(content) if self.streams else state.take_response(*content)
        if kind == lib.LR_K_HEADERS:
            return state.take_headers(content)
        if kind == lib.LR_K_STATUS:
            return state.take_status(content)
        if kind == lib.LR_K_RESET:
            return state.take_reset(*content)
        if kind == lib.LR_K_END or content is None:
            return Then.GO_ON
        code, details = content
        return state.end(code, details, debug=debug_text(code, details))

    def _read(self, live: Live, limit: int) -> tuple[int, Any]:
        """Read as receive(), with failures as gRPC statuses and a unary answer deserialized.

        Called without the lock, which must not be held while user code deserializes.
        """
        kind, content = self._receive(live, limit)
        if kind == lib.LR_K_MESSAGES and not self.streams:
            response, bad = deserialize(content[0], self._deserialize)
            return kind, (response, len(content), bad)
        if kind == lib.LR_K_RESET:
            number, text, unseen = content
            return lib.LR_UNSENT if unseen else kind, (status.code_of(number), text)
        if kind >= 0 or kind == lib.LR_TIMEOUT or type(content) is tuple:
            return kind, content
        connector, size = self.connector, content or 0
        # Without a connector the call has ended meanwhile, and this result is not used.
        return kind, connector and connector.failure(kind, size, live.session, self.deadline)

    def _receive(self, live: Live, limit: int) -> tuple[int, Any]:
        """Read as receive(), completing a large message; a partial one is kept for the next try."""
        engine, handle = live.session.engine, live.handle
        if self._partial is None:
            kind, content = receive(engine, handle, limit)
            if kind != lib.LR_K_BIG:
                return kind, content
            try:
                self._partial = blank(content)
            except MemoryError:
                return lib.LR_NOMEM, (grpc.StatusCode.RESOURCE_EXHAUSTED, no_memory(content))
        message = self._partial
        result = fill(engine, handle, message, limit)
        if result == lib.LR_TIMEOUT:
            return result, None
        self._partial = None
        if result == lib.LR_ENDED:
            return self._receive(live, limit)  # a reset has discarded the message
        return (lib.LR_K_MESSAGES, [message]) if result == 0 else (result, len(message))

    # Consuming

    def next_message(self) -> bytes | None:
        """Return the next response message; None if the call has ended without another one."""
        messages = self.state.messages
        if self.deadline != NEVER and self._late():
            self.poll()  # as in grpcio: a status that has arrived, but no messages
        while True:
            try:
                return messages.popleft()
            except IndexError:  # none yet, or another thread has taken it
                if self.ended() and not messages:
                    return None
            self.wait(lambda: bool(messages) or self.ended())


class _Step(Enum):
    """The result of one wait."""

    DONE = auto()
    CAME = auto()
    NOTHING = auto()


class _Left:
    """What remains to be done for a call that has just ended."""

    def __init__(self, call: ClientCall, then: Then) -> None:
        self._connector = call.connector
        self._live = call.live
        self._callbacks = call._callbacks
        self._watched = call._watched
        self._streams = call.streams
        self._tell = then is Then.CANCEL
        self._code, self._details = call.state.code, call.state.details

    def go(self) -> None:
        """Notify the peer, the core and waiting threads. Called without the call's lock."""
        connector = self._connector
        if self._live is None:
            if connector is not None:
                connector.nudge()  # a thread may wait there for a connection
        else:
            session, handle = self._live
            try:
                if self._tell:
                    number, text = status.number_of(self._code), (self._details or "").encode()
                    lib.lr_cancel(session.engine, handle, number, text, len(text))
                lib.lr_release(session.engine, handle)
            finally:
                session.count(-1, streams=self._streams)
            if self._watched:
                session.unwatch(handle)
        if self._callbacks and connector is not None:
            connector.callbacks.post(*self._callbacks)

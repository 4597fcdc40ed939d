"""One call as the client sees it: who needs something from it reads it.

There is no reader thread. The thread that asks for a message, the status or a
result reads in the core and hands out what it finds; others that ask for the
same call wait for it. A call with done callbacks is watched by its session.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic_ns
from typing import Any, NamedTuple

import grpc

from localrpc import status
from localrpc.drive.core import NEVER, NOW, blank, lib, patience
from localrpc.drive.endings import (
    BAD_RESPONSE,
    CHANNEL_CLOSED,
    COLLECTED,
    DEADLINE_EXCEEDED,
    TOO_MANY,
    debug_text,
    deserialize,
    too_much_metadata,
    trailer_pairs,
)
from localrpc.drive.finalizers import run_later
from localrpc.drive.keeper import ChannelClosed, Keeper
from localrpc.drive.reading import fill, no_memory, receive
from localrpc.drive.session import Session
from localrpc.errors import RemoteProtocolError
from localrpc.metadata import Pairs
from localrpc.wire import codec
from localrpc.wire.states import Event, Phase, advance

_unchanging: Any = threading.RLock()
"""The lock of all calls that are over from the start."""


def _regain(lock: Any) -> None:
    if not lock._is_owned():
        lock.acquire()


def _let_go_of(lock: Any) -> None:
    """Where `with` will not do: an interrupt may have come before the lock was regained."""
    if lock._is_owned():
        lock.release()


class Live(NamedTuple):
    """Where a call is live: one object, because a handle means another call elsewhere."""

    session: Session
    handle: int


class ClientCall:
    """The state of a call, shared by its facade, its request sender and its watcher.

    `_lock` guards everything below it. `code` is None until the call has
    ended; then nothing changes any more. `live` and `keeper` are None by then: who
    keeps a call that is over keeps no connection. Read without the lock, each of
    them is to be read once.
    """

    def __init__(
        self,
        keeper: Keeper,
        method: str,
        deserialize: Callable[[bytes], Any] | None,
        *,
        deadline: int,
        streams: bool,
    ) -> None:
        self.keeper: Keeper | None = keeper
        self.method = method
        self.deadline = deadline
        self._deserialize = deserialize
        self._streams = streams
        # An RLock knows whether this thread has it, wherever KeyboardInterrupt came.
        self._lock: Any = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self.live: Live | None = None
        self._phase = Phase.WAITING
        self.messages: deque[bytes] = deque()
        self.response: Any = None
        self.initial_metadata: Pairs | None = None
        self.trailing_metadata: Pairs | None = None
        self.code: grpc.StatusCode | None = None
        self.details: str | None = None
        self.debug_error_string: str | None = None
        self.cancelled = False
        self.callbacks: list[Callable[[], object]] | None = []
        self._reading = False
        self._watched = False
        self._partial: bytes | None = None
        self._answered = False
        self.reopen: Callable[[ClientCall], None] | None = None
        """Set while the call could begin again, had nobody seen it."""

    @classmethod
    def over(cls, method: str, response: Any, initial: Pairs, trailing: Pairs) -> ClientCall:
        """A call that has ended well; light, because nothing will change in it."""
        call = cls.__new__(cls)
        call.keeper = None
        call.method = method
        call.deadline = NEVER
        call._lock = _unchanging
        call.live = None
        call.messages = deque()
        call.response = response
        call.initial_metadata = initial
        call.trailing_metadata = trailing
        call.code = grpc.StatusCode.OK
        call.details = call.debug_error_string = ""
        call.cancelled = False
        call.callbacks = None
        return call

    def running(self) -> bool:
        return self.code is None

    # Beginning

    def adopt(self, session: Session, handle: int, *, half_closed: bool = False) -> None:
        """The call is live in the core as `handle`; gives it back if it has ended here."""
        with self._lock:
            if self.code is not None:
                lib.lr_release(session.engine, handle)
                return
            self.live = Live(session, handle)
            self._phase = advance(Phase.WAITING, Event.START)
            if half_closed:
                self._phase = advance(self._phase, Event.SEND_END)
            self._changed.notify_all()
            watch = self._watched
        if watch:
            session.watch(self, handle, self.deadline)

    def _start_over(self) -> None:
        """Nobody has seen the call: try elsewhere, `_lock` held."""
        live, keeper, reopen = self.live, self.keeper, self.reopen
        assert live is not None
        assert keeper is not None
        assert reopen is not None
        self.live = None
        self._reading = True
        try:
            self._lock.release()
            lib.lr_release(live.session.engine, live.handle)
            keeper.lost(live.session)
            try:
                reopen(self)
            except ChannelClosed:
                self.end(*CHANNEL_CLOSED)
        finally:
            _regain(self._lock)
            self._reading = False
            self._changed.notify_all()

    # Sending

    def send(self, message: bytes, *, wait: bool = True) -> bool | None:
        """Whether more may be sent; None when nothing was, because it would have waited."""
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
        with self._lock:
            live = self.live
            if live is None:
                return
            self._phase = advance(self._phase, Event.SEND_END)
        lib.lr_half_close(live.session.engine, live.handle)

    # Ending

    def end(
        self,
        code: grpc.StatusCode,
        details: str,
        metadata: Pairs = (),
        *,
        cancelled: bool = False,
        debug: str | None = None,
        sent: bool = True,
    ) -> bool:
        """End the call here and, if it is still live, at the peer; False if it had ended.

        Whatever the reason, a deadline that has passed came first, and an answer before that.
        """
        if code is not grpc.StatusCode.DEADLINE_EXCEEDED and self._late():
            self.poll()
        with self._lock:
            if self.code is not None:
                return False
            self.cancelled = cancelled  # before `code`, which others look at without the lock
            left = self._end(code, details, metadata, debug)
        left.go(code if sent else None, details)
        return True

    def _end(
        self, code: grpc.StatusCode, details: str, metadata: Pairs, debug: str | None
    ) -> _Left:
        """What is to be done about it without the lock."""
        self._phase = advance(self._phase, Event.ABORT)
        if self.initial_metadata is None:
            self.initial_metadata = ()
        self.trailing_metadata = metadata
        self.details = details
        self.debug_error_string = debug
        if code is not grpc.StatusCode.OK:
            self.messages.clear()
        self.code = code
        left = _Left(self.keeper, self.live, self.callbacks, watched=self._watched)
        self.keeper = self.live = self.callbacks = self.reopen = None
        self._changed.notify_all()
        return left

    def abandon(self) -> None:
        """The facade is garbage. A finalizer: it takes no lock."""
        if self.code is not None:
            return
        live = self.live
        if live is None or self._watched:
            # Another thread is at work on it.
            run_later(partial(self.end, *COLLECTED, cancelled=True))
            return
        self.cancelled = True
        self.code, self.details = COLLECTED
        self.keeper = self.live = self.callbacks = self.reopen = None
        lib.lr_release(live.session.engine, live.handle)

    def add_callback(self, callback: Callable[[], object]) -> bool:
        """False when the call has ended: then it is the caller's to run."""
        with self._lock:
            if self.callbacks is None:
                return False
            self.callbacks.append(callback)
            if self._watched:
                return True
            self._watched = True
            live = self.live
        if live is not None:
            live.session.watch(self, live.handle, self.deadline)
        return True

    # Reading

    def wait(self, done: Callable[[], bool], until: int = NEVER) -> bool:
        """Read until `done()`, which is asked under the lock; False at the moment `until`."""
        try:
            self._lock.acquire()
            while not done():
                self._step(until)
                if until != NEVER and monotonic_ns() >= until:
                    return done()
        finally:
            _let_go_of(self._lock)
        return True

    def poll(self) -> None:
        """Take in what has come, without waiting; after the deadline the call has ended then."""
        try:
            self._lock.acquire()
            while self.code is None and not self.messages and not self._reading:
                if not self._step(NOW):
                    break
        finally:
            _let_go_of(self._lock)
        if self._late():
            self.end(*DEADLINE_EXCEEDED, debug=debug_text(*DEADLINE_EXCEEDED))

    def _late(self) -> bool:
        """Whether the deadline has passed and the call has not ended."""
        return self.code is None and self.deadline != NEVER and monotonic_ns() >= self.deadline

    def _step(self, until: int) -> bool:
        """Wait for one thing to happen, `_lock` held; False when nothing did."""
        limit = self.deadline
        if until != NEVER and (limit == NEVER or until < limit):
            limit = until
        live = self.live
        if self._reading and live is not None and live.session.inherited:
            self._reading = False  # who read has stayed in the parent
        if self._reading or live is None or self.messages:
            if until == NOW:
                return False
            left = None if limit == NEVER else max((limit - monotonic_ns()) / 1e9, 0)
            if self._changed.wait(patience(left)):
                return True
            kind, content = lib.LR_TIMEOUT, None
        else:
            self._reading = True
            try:
                self._lock.release()
                kind, content = self._read(live, limit)
            finally:
                _regain(self._lock)
                self._reading = False
                self._changed.notify_all()
        if self.code is not None:
            return True
        if kind == lib.LR_TIMEOUT:
            if self.deadline == NEVER or monotonic_ns() < self.deadline:
                return False
            content = DEADLINE_EXCEEDED
        if kind == lib.LR_UNSENT and self.reopen is not None:
            self._start_over()
        else:
            self._take(kind, content)
        return True

    def _read(self, live: Live, limit: int) -> tuple[int, Any]:
        """What receive() gives, with a failure in gRPC's terms; only _partial is changed."""
        engine, handle = live.session.engine, live.handle
        if self._partial is None:
            kind, content = receive(engine, handle, limit)
            if kind == lib.LR_K_RESET:
                number, text, unseen = content
                return lib.LR_UNSENT if unseen else kind, (status.code_of(number), text)
            if kind < 0 and kind != lib.LR_TIMEOUT:
                return kind, self._failure(kind, content, live.session)
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
            return self._read(live, limit)  # a reset has taken it away
        if result < 0:
            return result, self._failure(result, len(message), live.session)
        return lib.LR_K_MESSAGES, [message]

    def _failure(self, result: int, size: int, session: Session) -> Any:
        keeper = self.keeper
        # Without a keeper the call has ended meanwhile, and nobody asks how.
        return None if keeper is None else keeper.failure(result, size, session)

    def _take(self, kind: int, content: Any) -> None:
        """Apply one event, `_lock` held."""
        self.reopen = None  # the peer has seen the call, which needs its request no more
        keeper = self.keeper
        assert keeper is not None  # it has not ended
        if kind == lib.LR_K_MESSAGES:
            if self._streams:
                self.messages.extend(content)
            elif self._answered or len(content) > 1:
                self._finish(*TOO_MANY, cancel=True)
            elif not self._deliver(content[0]):
                self._finish(*BAD_RESPONSE, cancel=True)
        elif kind == lib.LR_K_HEADERS:
            try:
                pairs = codec.decode_metadata(content)
            except RemoteProtocolError as error:
                self._finish(grpc.StatusCode.INTERNAL, str(error), cancel=True)
                return
            refusal = too_much_metadata(keeper.metadata_limits, content, pairs)
            if refusal:
                self._finish(*refusal, debug=debug_text(*refusal), cancel=True)
            else:
                self.initial_metadata = pairs
        elif kind == lib.LR_K_STATUS:
            try:
                trailer = codec.decode_trailer(content)
            except RemoteProtocolError as error:
                self._finish(grpc.StatusCode.INTERNAL, str(error))
                return
            refusal = too_much_metadata(keeper.metadata_limits, content, trailer_pairs(*trailer))
            if refusal:
                self._finish(*refusal, debug=debug_text(*refusal))
                return
            code = status.code_of(trailer.code)
            debug = debug_text(code, trailer.details)
            self._finish(code, trailer.details, trailer.metadata, debug=debug)
        elif kind == lib.LR_K_END:
            pass
        else:
            code, details = content
            self._finish(code, details, debug=debug_text(code, details), cancel=kind < 0)

    def _deliver(self, message: bytes) -> bool:
        response, fault = deserialize(message, self._deserialize)
        if fault:
            return False
        self.response = response
        self._answered = True
        return True

    def _finish(
        self,
        code: grpc.StatusCode,
        details: str,
        metadata: Pairs = (),
        *,
        debug: str | None = None,
        cancel: bool = False,
    ) -> None:
        if self.code is not None:
            return  # by the deserializer, which is the user's
        left = self._end(code, details, metadata, debug)
        try:
            self._lock.release()
            left.go(code if cancel else None, details)
        finally:
            _regain(self._lock)

    # Consuming

    def next_message(self) -> bytes | None:
        """The next response message; None when the call has ended without one more."""
        if self.deadline != NEVER and self._late():
            self.poll()  # as grpcio, a status that is already here, but no messages
        while True:
            try:
                return self.messages.popleft()
            except IndexError:  # none yet, or another thread has taken it
                if self.code is not None and not self.messages:
                    return None
            self.wait(lambda: bool(self.messages) or self.code is not None)


class _Left:
    """What a call that has just ended had hold of."""

    def __init__(
        self,
        keeper: Keeper | None,
        live: Live | None,
        callbacks: list[Callable[[], object]] | None,
        *,
        watched: bool,
    ) -> None:
        self._keeper = keeper
        self._live = live
        self._callbacks = callbacks
        self._watched = watched

    def go(self, code: grpc.StatusCode | None, details: str) -> None:
        """Tell the peer, unless `code` is None or OK, the core, and who waits for the end."""
        keeper = self._keeper
        if self._live is None:
            if keeper is not None:
                keeper.nudge()  # a thread may wait there for a connection
        else:
            session, handle = self._live
            if code is not None and code is not grpc.StatusCode.OK:
                text = details.encode()
                lib.lr_cancel(session.engine, handle, status.number_of(code), text, len(text))
            lib.lr_release(session.engine, handle)
            if self._watched:
                session.unwatch(handle)
        if self._callbacks and keeper is not None:
            keeper.callbacks.post(*self._callbacks)

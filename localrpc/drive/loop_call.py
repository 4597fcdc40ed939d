"""One call as a client drives it from an event loop. For the loop's own thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from time import monotonic_ns
from typing import Any

import grpc

from localrpc import status
from localrpc.calls.keeping import Kept
from localrpc.calls.messages import unreadable
from localrpc.calls.request import ATTEMPTS
from localrpc.calls.state import CallState, Then
from localrpc.calls.texts import (
    COLLECTED,
    DEADLINE_EXCEEDED,
    LOCALLY_CANCELLED,
    debug_text,
    no_memory,
)
from localrpc.drive.core import NEVER, lib
from localrpc.drive.loop_connector import LoopConnector
from localrpc.drive.loop_session import INLINE, LoopSession

TURN = 64
"""Messages that one call sends before the loop's other tasks have their turn."""
_MANY = 64
_BULK = 1 << 18
"""Messages, and bytes of these, that a call keeps for a reader: then its sender has to wait."""


class LoopCall:
    """A client's call, shared by the API's call object and the tasks that send for it.

    `state` is the call's state. Futures of those who wait for a change of it are in `waiters`.
    Once the call has ended it refers neither to the connector nor to the session.
    """

    session: LoopSession | None = None
    handle = 0
    attempts = ATTEMPTS
    starting: asyncio.Task[None] | None = None
    _callbacks: list[Callable[[], object]] | None = None
    _paused = False
    _kept = 0
    _sent = 0
    _partial = False
    """True while a large message may have been sent in part."""
    _request: tuple[bytes, bytes | None, bool] | None = None
    """What the call began with, while it may begin again because no server has seen it."""
    _keeps: Kept | None = None
    """What has been sent of a stream of requests, as long."""
    _resending = False
    """True from the moment at which the call begins again until what was kept is sent."""

    def __init__(
        self,
        connector: LoopConnector,
        method: str,
        number: int,
        deserialize: Callable[[bytes], Any] | None,
        deadline: int,
        *,
        streams: bool,
    ) -> None:
        self.connector: LoopConnector | None = connector
        self.loop = connector.loop
        self.method = method
        self.number = number
        self.deadline = deadline
        self.state = CallState(connector.metadata_limits, streams=streams)
        self.waiters: list[asyncio.Future[None]] = []
        self._deserialize = deserialize
        self._streams = streams
        if streams:
            self.state.keeps_messages = True

    def running(self) -> bool:
        return self.state.code is None

    # Waiting

    def change(self) -> asyncio.Future[None]:
        """Return a future that is done at the next change of the state, or of the room to send."""
        future = self.loop.create_future()
        self.waiters.append(future)
        return future

    def forget(self, future: asyncio.Future[None]) -> None:
        """Drop a future of change() that is no longer awaited."""
        if future in self.waiters:
            self.waiters.remove(future)

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait until `done()`; the call must not be able to end without a change of that."""
        while not done():
            future = self.change()
            try:
                await future
            except BaseException:
                self.forget(future)
                raise

    def _wake(self) -> None:
        waiters = self.waiters
        if waiters:
            self.waiters = []
            for future in waiters:
                if not future.done():
                    future.set_result(None)

    # Beginning

    def start(self, head: bytes, message: bytes | None, *, wait_for_ready: bool) -> None:
        """Begin the call, at once if there is a connection and room on it."""
        connector = self.connector
        if connector is None:
            return
        # If it is not alive any more, it refuses the call.
        session = connector.best(streams=self._streams)
        self._request = (head, message, wait_for_ready)
        if message is None:
            self._keeps = Kept()
        if session is not None and (message is None or len(message) <= INLINE):
            self.attempts -= 1
            result = session.open(self, head, message)
            if result:
                self._not_begun(session, result, head, message, wait_for_ready)
            return
        self._start_soon(head, message, wait_for_ready)

    def begin_with(self, session: LoopSession, message: bytes, wait_for_ready: bool) -> None:
        """Begin a call without metadata whose message fits into its first frame."""
        self._request = (b"", message, wait_for_ready)
        self.attempts = ATTEMPTS - 1
        result = session.open_plain(self, message)
        if result:
            self._not_begun(session, result, b"", message, wait_for_ready)

    def _not_begun(
        self,
        session: LoopSession,
        result: int,
        head: bytes,
        message: bytes | None,
        wait_for_ready: bool,
    ) -> None:
        """Go on after a first try on a session that seemed to be there."""
        if result in _UNSEEN:
            if self.connector is not None:
                self.connector.lost(session)
        elif result != lib.LR_AGAIN:
            self.fail(result, 0)
            return
        self._start_soon(head, message, wait_for_ready)

    def _start_soon(self, head: bytes, message: bytes | None, wait_for_ready: bool) -> None:
        task = self.loop.create_task(self._start(head, message, wait_for_ready))
        # The loop may be closed first, as by asyncio.run() just after it has cancelled all tasks.
        # The program has done nothing wrong, so the task should not report it.
        with contextlib.suppress(AttributeError):  # of a task factory's own class
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        self.starting = task

    async def _start(self, head: bytes, message: bytes | None, wait_for_ready: bool) -> None:
        try:
            await self._attempt(head, message, wait_for_ready)
        except BaseException:  # with all tasks of the loop, or by an error here
            self.end(*LOCALLY_CANCELLED, cancelled=True)
            raise

    async def _attempt(self, head: bytes, message: bytes | None, wait_for_ready: bool) -> None:
        result = lib.LR_UNSENT
        connector = self.connector
        while connector is not None and self.running() and self.attempts:
            self.attempts -= 1
            session = await connector.ready_for(
                self, wait_for_ready=wait_for_ready, streams=self._streams
            )
            if session is None:
                return
            result = session.open(self, head, message)
            while result == lib.LR_AGAIN and self.running():
                await session.room_until(self.deadline)
                if self.running():
                    result = session.open(self, head, message)
            if result == 0:
                if message is None:
                    await self._resend()
                elif len(message) > INLINE:
                    await self.send(message, lib.LR_F_END)
                return
            if result not in _UNSEEN:
                break
            connector.lost(session)
        if self.running():
            self.fail(result, 0)

    def begin(self, session: LoopSession, handle: int) -> None:
        """Note that the call is live in the core."""
        self.session = session
        self.handle = handle
        if self._streams:
            session.streams.add(handle)
        if self.waiters:
            self._wake()

    def _again(self) -> bool:
        """Begin once more, because no server has seen the call. Return False if that cannot be."""
        request, session, connector = self._request, self.session, self.connector
        if request is None or session is None or connector is None or not self.attempts:
            return False
        self._part_from(session)
        connector.lost(session)
        self._resending = self._keeps is not None
        head, message, wait_for_ready = request
        self._start_soon(head, message, wait_for_ready)
        return True

    def _part_from(self, session: LoopSession) -> None:
        self.session = None
        self._partial = False
        session.calls.pop(self.handle, None)
        session.streams.discard(self.handle)
        lib.lr_release(session.engine, self.handle)

    # Sending

    async def send(self, message: bytes, flags: int = 0) -> bool:
        """Send a message, waiting for room and credit. Return False if the call has ended.

        While a large message has been sent in part, other tasks wait. If this one is cancelled, its
        caller has to end the call.
        """
        self._sent += 1
        if not self._sent % TURN:
            await asyncio.sleep(0)
        await self.whole()
        if self._keeps is not None:
            return await self._send_and_keep(self._keeps, message)
        return await self._put(message, flags)

    async def _put(self, message: bytes, flags: int = 0) -> bool:
        session = self.session
        while session is not None and session is self.session:  # it may begin again on another
            if not session._turn:
                session.sending()
            result = lib.lr_send(session.engine, self.handle, message, len(message), flags, NEVER)
            if result == 0:
                if self._partial:
                    self._partial = False
                    self._wake()
                return True
            if result != lib.LR_AGAIN:
                return False
            self._partial = len(message) > INLINE
            await self._room(session)
        return False

    async def _send_and_keep(self, keeps: Kept, message: bytes) -> bool:
        """Send a message, on whatever session the call is live."""
        while self.running():
            if self._resending:
                await self.until(lambda: not self._resending or not self.running())
                continue
            session = self.session
            if await self._put(message):
                if not keeps.add(message):
                    self._request = None
                if self._request is None:
                    self._keeps = None
                return True
            # It has ended there: what comes says how, and it may begin again.
            await self.until(lambda: self.session is not session or not self.running())  # noqa: B023
        return False

    async def _resend(self) -> None:
        """Send what was sent before the call began again."""
        keeps, session = self._keeps, self.session
        if keeps is None or not self._resending:
            return
        for message in list(keeps.messages):
            if not await self._put(message) or self.session is not session:
                return  # it ends, or has begun once more
        self._resending = False
        if keeps.closed:
            self.half_close()
        if self._request is None:
            self._keeps = None
        self._wake()

    async def whole(self) -> None:
        """Wait until no message is sent in part, or the call has ended."""
        while self._partial and self.running():
            await self.until(lambda: not self._partial or not self.running())

    async def _room(self, session: LoopSession) -> None:
        room, change = session.room(), self.change()
        try:
            await asyncio.wait((room, change), return_when=asyncio.FIRST_COMPLETED)
        finally:
            session.forget(room)
            self.forget(change)

    def half_close(self) -> None:
        if self._keeps is not None:
            self._keeps.closed = True
        if self.session is not None and not self._resending:
            self.session.sending()
            lib.lr_half_close(self.session.engine, self.handle)

    def room_came(self) -> None:
        self._wake()

    # News

    def take_message(self, message: bytes) -> None:
        self._request = None
        state = self.state
        if not self._streams:
            try:
                function = self._deserialize
                response = message if function is None else function(message)
            except Exception:
                unreadable()
                response = None
            then = state.take_response(response, 1, response is None)
            if then is not Then.GO_ON:
                self._do(then)
            return
        state.messages.append(message)
        self._kept += len(message)
        if not self._paused and (len(state.messages) >= _MANY or self._kept >= _BULK):
            self._paused = True
            if self.session is not None:
                lib.lr_pause(self.session.engine, self.handle, 1)
        self._wake()

    def pop_message(self) -> bytes:
        """Take the next message of a stream; there is one."""
        messages = self.state.messages
        message = messages.popleft()
        self._kept -= len(message)
        if self._paused and len(messages) < _MANY // 2 and self._kept < _BULK:
            self._paused = False
            if self.session is not None:
                lib.lr_pause(self.session.engine, self.handle, 0)
        return message

    def take_headers(self, block: bytes) -> None:
        self._request = None
        self._do(self.state.take_headers(block))
        self._wake()

    def take_status(self, block: bytes) -> None:
        """Take the end of the call, which the core has released with it."""
        if self._streams and self.session is not None:
            self.session.streams.discard(self.handle)
        self.session = None
        if block or self._callbacks is not None or self.starting is not None:
            self._do(self.state.take_status(block) if block else self.state.take_ok())
            return
        self.state.take_ok()
        self.connector = self._request = None
        self._wake()

    def take_last(self, message: bytes) -> None:
        """Take the last message and the status OK; the core has released the call with them."""
        if self._streams and self.session is not None:
            self.session.streams.discard(self.handle)
        self.session = None
        if self._streams or self._callbacks is not None or self.starting is not None:
            self.take_message(message)
            self._do(self.state.take_ok())
            return
        function = self._deserialize
        try:
            response = message if function is None else function(message)
        except Exception:
            unreadable()
            self._do(self.state.take_response(None, 1, True))
            return
        then = self.state.take_answer(response)
        if then is not Then.RELEASE:
            self._do(then)
            return
        self.connector = self._request = None
        waiters = self.waiters
        if waiters:
            self.waiters = []
            for future in waiters:
                if not future.done():
                    future.set_result(None)

    def take_reset(self, code: grpc.StatusCode, details: str, unseen: bool) -> None:
        if not (unseen and self._again()):
            self._do(self.state.take_reset(code, details))

    def expire(self) -> None:
        """End the call because its deadline has passed."""
        self.end(*DEADLINE_EXCEEDED, debug=debug_text(*DEADLINE_EXCEEDED))

    def no_memory(self, size: int) -> None:
        code, details = grpc.StatusCode.RESOURCE_EXHAUSTED, no_memory(size)
        self.end(code, details, debug=debug_text(code, details))

    def fail(self, result: int, size: int) -> None:
        """End the call for a negative result of the core."""
        if result == lib.LR_UNSENT and self._again():
            return
        connector = self.connector
        if connector is None:
            return
        code, details = connector.failure(result, size, self.session)
        end = partial(self._end_with, code)
        if not connector.explain(details, self.session, self.deadline, end):
            self._end_with(code, details)

    def _end_with(self, code: grpc.StatusCode, details: str) -> None:
        if self.deadline != NEVER and monotonic_ns() >= self.deadline:
            self.expire()
        else:
            self.end(code, details, debug=debug_text(code, details))

    # Ending

    def end(
        self,
        code: grpc.StatusCode,
        details: str,
        *,
        debug: str | None = None,
        cancelled: bool = False,
    ) -> bool:
        """End the call here and, if it is still live, at the peer. Return False if it had ended."""
        then = self.state.end(code, details, debug=debug, cancelled=cancelled)
        self._do(then)
        return then is not Then.GO_ON

    def close(self) -> None:
        """End the call because its channel is closed; as in grpc.aio, as if it were cancelled."""
        self.end(*LOCALLY_CANCELLED, cancelled=True)

    async def until_over(self) -> None:
        """Wait until the call has ended."""
        await self.until(lambda: self.state.code is not None)

    def abandon(self) -> None:
        """End the call because its API object is garbage."""
        self.end(*COLLECTED, cancelled=True)

    def _do(self, then: Then) -> None:
        if then is Then.GO_ON:
            return
        session, starting = self.session, self.starting
        if session is not None:
            self.session = None
            session.calls.pop(self.handle, None)
            session.streams.discard(self.handle)
            if then is Then.CANCEL:
                state = self.state
                session.sending()
                number, text = status.number_of(state.code), (state.details or "").encode()
                lib.lr_cancel(session.engine, self.handle, number, text, len(text))
            lib.lr_release(session.engine, self.handle)
        self.connector = self._request = None
        self.starting = None
        if self.loop.is_closed():
            self._callbacks = None
            return
        if starting is not None and not starting.done() and starting is not _current_task():
            starting.cancel()
        callbacks, self._callbacks = self._callbacks, None
        if self.waiters:
            self._wake()
        for callback in callbacks or ():
            try:
                callback()
            except Exception as error:
                self.loop.call_exception_handler(
                    {"message": "Exception in a done callback of a call", "exception": error}
                )

    def add_callback(self, callback: Callable[[], object]) -> bool:
        """Add a callback for the call's end. Return False if it has ended: the caller runs it."""
        if self.state.code is not None:
            return False
        if self._callbacks is None:
            self._callbacks = []
        self._callbacks.append(callback)
        return True


_UNSEEN = (lib.LR_UNSENT, lib.LR_FORKED)


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None  # not inside the loop

"""A server's engine on an event loop, and its calls. For the loop's own thread, but for admit()."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import Any

from localrpc import _log, status
from localrpc.calls import texts
from localrpc.calls.answer import AnswerState, Reply, Then
from localrpc.drive.core import NEVER, NULL, blank, ffi, lib
from localrpc.drive.event_loop import LoopEngine, News
from localrpc.drive.listening import Listening
from localrpc.drive.reading import fill
from localrpc.metadata import SizeLimits
from localrpc.options import Options
from localrpc.transports import Connection
from localrpc.wire.frames import NAME_MAX

_logger = _log.logger("server")

_CALL = lib.LR_K_CALL
_MANY = 64
_BULK = 1 << 18
"""Requests, and bytes of these, that a call keeps for its handler: then its client has to wait."""
INLINE = int(lib.LR_INLINE)
TURN = 64
"""Messages that one call sends before the loop's other tasks have their turn."""


class LoopServed:
    """A call on the server. Made for every call, so it is small; the class has the defaults."""

    _answer: AnswerState | None = None
    """None while the answer is a single message and nothing else."""
    over = False
    """True once its status has been handed to the core, or its client has gone."""
    gone = False
    """True if its client has cancelled or died, or the deadline has passed."""
    ended = False
    """True once the client has sent its last request."""
    task: asyncio.Task[Any] | None = None
    """Runs the handler, if that has suspended."""
    too_large: int | None = None
    _sent = 0
    _partial = False
    """True while a large message may have been sent in part."""
    _after: Reply | None = None
    """The status that follows that message."""
    _requests: deque[bytes] | None = None
    _kept = 0
    _paused = False
    _waiter: asyncio.Future[None] | None = None
    _others: Sequence[asyncio.Future[None]] = ()

    def __init__(
        self,
        serving: LoopServing,
        call: int,
        connection: Connection | None,
        head: bytes,
        deadline: int,
    ) -> None:
        self._serving = serving
        self._call = call
        self._connection = connection
        self._head = head
        self._deadline = deadline

    @property
    def answer(self) -> AnswerState:
        """The state of an answer that is more than one message; created on first use."""
        answer = self._answer
        if answer is None:
            answer = self._answer = AnswerState()
        return answer

    def is_alive(self) -> bool:
        """Return True if an answer can be sent and the client waits for it."""
        return not self.over and (self._deadline == NEVER or monotonic_ns() < self._deadline)

    def method(self) -> bytes:
        """Return the method's name; empty if the call is over."""
        return self._serving.method_of(self._call)

    # Requests

    def take_request(self, message: bytes) -> None:
        requests = self._requests
        if requests is None:
            requests = self._requests = deque()
        requests.append(message)
        self._kept += len(message)
        if not self._paused and (len(requests) >= _MANY or self._kept >= _BULK):
            self._paused = True
            lib.lr_pause(self._serving.engine, self._call, 1)
        self.wake()

    def take_end(self) -> None:
        self.ended = True
        self.wake()

    def pop_request(self) -> bytes | None:
        """Take the next request that has come, None if there is none."""
        requests = self._requests
        if not requests:
            return None
        message = requests.popleft()
        self._kept -= len(message)
        if self._paused and len(requests) < _MANY // 2 and self._kept < _BULK:
            self._paused = False
            lib.lr_pause(self._serving.engine, self._call, 0)
        return message

    def change(self) -> asyncio.Future[None]:
        """Return a future that is done once a request, room to send, or the end has come."""
        waiter = self._serving.futures()
        if self._waiter is None or self._waiter.done():
            self._waiter = waiter
        else:  # of another task: if this one is cancelled, that one waits on
            self._others = [*(each for each in self._others if not each.done()), waiter]
        return waiter

    def wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        if self._others:
            others, self._others = self._others, ()
            for each in others:
                if not each.done():
                    each.set_result(None)

    # Answering

    def send_headers(self, block: bytes) -> None:
        """Send the encoded initial metadata."""
        self._serving.sending()
        lib.lr_headers(self._serving.engine, self._call, block, len(block))

    async def send(self, message: bytes) -> bool:
        """Send a message, waiting for room and credit. Return False if the call has ended.

        A large message that has begun has to be finished before anything else of the call is
        sent: other tasks wait, and the status; and if this task is cancelled then, the call ends.
        """
        serving, call = self._serving, self._call
        self._sent += 1
        if not self._sent % TURN:
            await asyncio.sleep(0)
        while self._partial and not self.over:
            await serving.room(self)
        while not self.over:
            if not serving._turn:
                serving.sending()
            result = lib.lr_send(serving.engine, call, message, len(message), 0, self._deadline)
            if result == 0:
                self._whole()
                return True
            if result != lib.LR_AGAIN:
                self._cannot_send(result, len(message))
                return False
            self._partial = len(message) > INLINE
            try:
                await serving.room(self)
            except BaseException:
                if lib.lr_sending(serving.engine, call) == 1:
                    self.lose(*texts.CANCELLED_BY_HANDLER)
                self._whole()
                raise
        return False

    def _whole(self) -> None:
        """Note that nothing is sent in part any more."""
        if not self._partial:
            return
        self._partial = False
        self.wake()
        after, self._after = self._after, None
        if after is not None:
            self.do(after)

    def _cannot_send(self, result: int, size: int) -> None:
        """End the call, before the core reports why nothing more can be sent."""
        if result == lib.LR_NOMEM:
            self.lose(*_no_memory(size))
        else:
            self.lose(*(texts.LATE if result == lib.LR_TIMEOUT else texts.CANCELLED_BY_HANDLER))

    def reply(self, message: bytes) -> None:
        """End the call with OK and a message of at most INLINE bytes."""
        if self._partial:
            self.finish(message)
            return
        self.over = True
        serving = self._serving
        serving.served.pop(self._call, None)
        if not serving._turn:
            serving.sending()
        lib.lr_finish(serving.engine, self._call, NULL, 0, message, len(message), 0)

    def finish(self, message: bytes | None) -> None:
        """End the handler normally: send its status, and its message if it has one."""
        self.do(self.answer.finish(message))

    def refuse(self, code: int, details: str) -> None:
        """End a failed call; a code or details that the handler has set take precedence."""
        self.do(self.answer.refuse(code, details))

    def let_go(self) -> None:
        """End the handler without an answer, because its client has gone."""
        self.do(self.answer.drop())

    def do(self, then: Reply | Then) -> None:
        """Do what the answer's state has returned."""
        serving = self._serving
        if self._partial and type(then) is Reply:
            self._after = then
            return
        serving.sending()
        if type(then) is Reply:
            self.answer.sent()
            message = then.message
            lib.lr_finish(
                serving.engine,
                self._call,
                then.trailer,
                len(then.trailer),
                NULL if message is None else message,
                0 if message is None else len(message),
                then.code,
            )
        elif then is Then.RELEASE:
            lib.lr_release(serving.engine, self._call)
        else:
            return
        self.over = True
        serving.served.pop(self._call, None)
        self._end()

    # The end

    def lose(self, number: int, text: bytes) -> None:
        """Note that the call is over before its answer: the handler is cancelled."""
        if self.over:
            return
        self.over = self.gone = True
        serving = self._serving
        serving.served.pop(self._call, None)
        serving.sending()
        lib.lr_cancel(serving.engine, self._call, number, text, len(text))
        lib.lr_release(serving.engine, self._call)
        self._end()
        if self.task is not None:
            self.task.cancel()
        self.wake()

    def _end(self) -> None:
        answer = self._answer
        if answer is None:
            return
        _, callbacks = answer.end()
        for callback in callbacks:
            try:
                callback()
            except Exception:
                _logger.exception("Exception calling callback!")


Accept = Callable[[LoopServed, int, int, "bytes | None"], object]
"""Called with each new call, its method's number, its flags, and its message if it has one."""


class LoopServing(LoopEngine):
    """One engine with many connections; `served` has the live calls by handle.

    `make` creates what stands for a call, `accept` begins it, and `on_end` is called when the last
    call after drain_calls() has ended, or no client can come any more.
    """

    def __init__(
        self,
        options: Options,
        max_calls: int | None,
        make: Callable[..., LoopServed],
        accept: Accept,
        on_end: Callable[[], None],
    ) -> None:
        super().__init__(lib.LR_SERVER, options, -1 if max_calls is None else max_calls)
        lib.lr_limit_users(self.engine, options.max_calls_per_user, options.max_memory_per_user)
        lib.lr_limit_waiting(self.engine, options.max_waiting_calls_per_user)
        self.options = options
        self.metadata_limits = SizeLimits(options.metadata_soft, options.max_metadata)
        self.served: dict[int, LoopServed] = {}
        self._listening = Listening(self.engine, options, self._deserted)
        self.connections = self._listening.connections
        self.targets = self._listening.targets
        self.listen = self._listening.listen
        self.say_where = self._listening.say_where
        self.stay = self._listening.stay
        self._make = make
        self._accept = accept
        self._on_end = on_end
        self._waiting: list[LoopServed] = []
        self._room_name = ffi.new("char[]", NAME_MAX)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self.futures = loop.create_future
        self.attach(loop)
        self._listening.open()

    def _deserted(self) -> None:
        loop = self._loop
        if loop is not None:
            loop.call_soon_threadsafe(self._on_end)

    # News

    def take(self, news: News, buf: bytes) -> None:
        served = self.served
        for handle, size, deadline, kind, flags, method, head, conn, at in news:
            if kind == _CALL:
                self._begin(handle, size, deadline, flags, method, head, conn, at, buf)
                continue
            call = served.get(handle)
            if call is None:
                self._take_other(kind, size, flags, head, conn, at, buf)
            elif kind == lib.LR_K_MESSAGES:
                call.take_request(buf[at : at + size])
            elif kind == lib.LR_K_END:
                call.take_end()
            elif kind == lib.LR_K_BIG:
                self._take_big(call, handle, size)
            elif kind == lib.LR_K_ROOM:
                call.wake()
            elif kind == lib.LR_K_ENDED:
                call.lose(*texts.LATE)
            elif kind == lib.LR_TOO_LARGE:
                call.too_large = size
                call.wake()
            elif kind == lib.LR_K_RESET or kind < 0:
                call.lose(*texts.CANCELLED_BY_HANDLER)

    def _begin(
        self, handle: int, size: int, deadline: int, flags: int, method: int, head: int,
        conn: int, at: int, buf: bytes,
    ) -> None:  # fmt: skip
        middle = at + head
        connection = self._listening.connection(conn)
        call = self._make(self, handle, connection, buf[at:middle] if head else b"", deadline)
        self.served[handle] = call
        data = None
        if flags & lib.LR_F_TOO_LARGE:
            call.too_large = size
        elif flags & lib.LR_F_MESSAGE:
            data = buf[middle : at + size]
        if flags & lib.LR_F_END and not flags & lib.LR_F_BIG:
            call.ended = True
        self._accept(call, method, flags, data)

    def _take_big(self, call: LoopServed, handle: int, size: int) -> None:
        try:
            message = blank(size)
        except MemoryError:
            call.lose(*_no_memory(size))
            return
        if fill(self.engine, handle, message, 1) == 0:
            call.take_request(message)

    def _take_other(
        self, kind: int, size: int, flags: int, head: int, conn: int, at: int, buf: bytes
    ) -> None:
        if kind == lib.LR_K_ROOM:
            waiting, self._waiting = self._waiting, []
            for call in waiting:
                call.wake()
        elif kind == lib.LR_K_CONN_CLOSED:
            self._listening.connection_ended(conn, size, bool(flags), buf[at : at + head])
        elif kind == lib.LR_K_DRAINED:
            self._on_end()

    async def room(self, call: LoopServed) -> None:
        """Wait until there may be room or credit to send, or the call has ended."""
        self._waiting.append(call)
        try:
            await call.change()
        finally:
            if call in self._waiting:
                self._waiting.remove(call)

    def method_of(self, handle: int) -> bytes:
        room = self._room_name
        size = lib.lr_call_method(self.engine, handle, room, NAME_MAX)
        return b"" if size < 0 else bytes(ffi.buffer(room, size))

    # Stopping

    def drain_calls(self) -> None:
        """Refuse new connections and calls; `on_end` follows the last call."""
        self.sending()  # to tell the clients
        self._listening.drain()

    def cancel_all(self) -> None:
        """End every call with grpcio's status for this, and cancel the handlers."""
        for call in list(self.served.values()):
            call.lose(*texts.CANCELLING_ALL)

    def finish(self) -> None:
        """Close the connections. Idempotent."""
        self._listening.close()
        self.close()
        for connection in self.connections.values():
            connection.close()
        self.connections.clear()
        self._listening.say_stopped()


def _no_memory(size: int) -> tuple[int, bytes]:
    return status.RESOURCE_EXHAUSTED, texts.no_memory(size).encode()

"""A client's connection on an event loop, and its calls. For the loop's own thread."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from time import monotonic_ns
from typing import Any, Protocol

import grpc

from localrpc import status
from localrpc.address import Address
from localrpc.calls.request import with_name
from localrpc.drive import naming
from localrpc.drive.core import NEVER, NULL, Io, blank, ffi, lib, publish
from localrpc.drive.event_loop import LoopEngine, News
from localrpc.drive.reading import fill
from localrpc.options import Options
from localrpc.transports.base import Connection

_MESSAGES = lib.LR_K_MESSAGES
_STATUS = lib.LR_K_STATUS
_AGAIN = lib.LR_AGAIN
INLINE = int(lib.LR_INLINE)
"""A request of this many bytes is sent in one frame with the call's beginning."""


class Caller(Protocol):
    """A call as its session and its connector use it; loop_call.py has the class."""

    session: Any
    handle: int
    method: str
    number: int
    deadline: int
    waiters: list[asyncio.Future[None]]

    def running(self) -> bool:
        """Return True until the call has ended."""

    def forget(self, future: asyncio.Future[None]) -> None:
        """Drop a future of `waiters` that is no longer awaited."""

    def begin(self, session: Any, handle: int) -> None:
        """Note that the call is live in the core."""

    def take_message(self, message: bytes) -> None:
        """Take a response."""

    def take_last(self, message: bytes) -> None:
        """Take the last response, and the status OK without metadata."""

    def take_headers(self, block: bytes) -> None:
        """Take the encoded initial metadata."""

    def take_status(self, block: bytes) -> None:
        """Take the encoded status and trailing metadata."""

    def take_reset(self, code: grpc.StatusCode, details: str, unseen: bool) -> None:
        """Take a reset; `unseen` if no handler has seen the call."""

    def room_came(self) -> None:
        """Note that what has returned LR_AGAIN can go on."""

    def expire(self) -> None:
        """End the call because its deadline has passed."""

    def no_memory(self, size: int) -> None:
        """End the call because a message of `size` bytes cannot be allocated."""

    def fail(self, result: int, size: int) -> None:
        """End the call for a negative result of the core."""

    async def until_over(self) -> None:
        """Wait until the call has ended."""

    def close(self) -> None:
        """End the call because its channel is closed."""

    def end(self, code: grpc.StatusCode, details: str, *, debug: str | None = None) -> bool:
        """End the call here."""


class LoopSession(LoopEngine):
    """An engine with one connection; `calls` has its live calls by handle.

    `on_lost` is called with the session when the connection has ended.
    """

    def __init__(
        self,
        connection: Connection,
        address: Address,
        options: Options,
        loop: asyncio.AbstractEventLoop,
        on_lost: Callable[[LoopSession], None],
    ) -> None:
        self.connection = connection
        self._on_lost = weakref.WeakMethod(on_lost)  # its object holds the session
        self._futures = loop.create_future
        self._lost = False
        self.calls: dict[int, Caller] = {}
        self.streams: set[int] = set()
        """The handles of those with a stream of answers."""
        self.load: Any = None
        """What is in progress, a calls.choosing.Load, if the channel has a choice."""
        self._declared: set[int] = set()
        self._io = Io()
        self._raw = self._io.raw
        self._waiting: list[asyncio.Future[None]] = []
        """Those that wait for room on the connection."""
        try:
            super().__init__(lib.LR_CLIENT, options, -1)
        except MemoryError:
            connection.close()
            raise
        publish(self.engine, str(address))
        if lib.lr_engine_add(self.engine, connection.link.take(), connection.hello.window) < 0:
            raise MemoryError(f"the core refused the connection: {self.reason()}")
        self.attach(loop)

    def alive(self) -> bool:
        """Return True if new calls may be made; False also while the peer stops gracefully."""
        return bool(lib.lr_engine_alive(self.engine) == 1)

    def close(self) -> None:
        """End the connection; calls in flight must have ended before. Idempotent."""
        super().close()
        self._wake()

    def disown(self) -> None:
        """Close a forked child's copy of the parent's link, without telling the peer."""
        lib.lr_engine_disown(self.engine)

    def reason(self) -> str:
        """Return why the link has ended."""
        text = ffi.new("char[]", 200)
        lib.lr_engine_error(self.engine, text, 200)
        return bytes(ffi.string(text)).decode("utf-8", "replace")

    def faulty(self) -> bool:
        """Return True if the medium of the link failed, for example because a disk was full."""
        return bool(lib.lr_engine_faulty(self.engine) > 0)

    # Sending

    def open(self, call: Caller, head: bytes, message: bytes | None) -> int:
        """Begin a call in the core. Return its result, LR_AGAIN if it has to wait for room.

        A message of more than INLINE bytes has to be sent afterwards.
        """
        number = call.number
        if number == naming.UNNUMBERED:
            head = with_name(call.method, head)
        elif number not in self._declared:
            name = call.method.encode()
            if lib.lr_method(self.engine, number, name, len(name)) == 0:
                self._declared.add(number)
        deadline = call.deadline
        left = -1
        if deadline != NEVER:
            left = (deadline - monotonic_ns()) // 1000
            if left <= 0:
                return int(lib.LR_TIMEOUT)
        if not self._turn:
            self.sending()
        raw = self._raw
        if message is None or len(message) > INLINE:
            result = lib.lr_open(
                self.engine, raw, number, head or NULL, len(head), left, NULL, 0, 0, deadline
            )
        else:
            result = lib.lr_open(
                self.engine, raw, number, head or NULL, len(head), left,
                message, len(message), _WHOLE, deadline,
            )  # fmt: skip
        if result == 0:
            handle = raw.call
            self.calls[handle] = call
            call.begin(self, handle)
        return int(result)

    def open_plain(self, call: Caller, message: bytes) -> int:
        """Begin a call as open() does, most of which have no head and no deadline."""
        number = call.number
        if call.deadline != NEVER or number not in self._declared:
            return self.open(call, b"", message)
        if not self._turn:
            self.sending()
        raw = self._raw
        result = lib.lr_open(
            self.engine, raw, number, NULL, 0, -1, message, len(message), _WHOLE, NEVER
        )
        if result == 0:
            call.session = self
            call.handle = handle = raw.call
            self.calls[handle] = call
        return int(result)

    def room(self) -> asyncio.Future[None]:
        """Return a future that is done once there may be room, or the connection has ended."""
        future = self._futures()
        self._waiting.append(future)
        return future

    def forget(self, future: asyncio.Future[None]) -> None:
        """Drop a future of room() that is no longer awaited."""
        if future in self._waiting:
            self._waiting.remove(future)

    async def room_until(self, deadline: int) -> None:
        """Wait for room, but not beyond `deadline` (of monotonic_ns())."""
        room = self.room()
        timer = None
        if deadline != NEVER:
            left = max((deadline - monotonic_ns()) / 1e9, 0)
            timer = room.get_loop().call_later(left, _resolve, room)
        try:
            await room
        finally:
            if timer is not None:
                timer.cancel()
            self.forget(room)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            _resolve(future)

    # Reading

    def take(self, news: News, buf: bytes) -> None:
        calls = self.calls
        before = len(calls)
        for handle, size, _, kind, flags, _, head, _, at in news:
            call = calls.get(handle)
            if call is None:
                if kind == lib.LR_K_ROOM and not handle:
                    self._wake()
                elif kind == lib.LR_CLOSED and not handle:
                    self._end()
            elif kind == _MESSAGES:
                if flags:
                    del calls[handle]
                    call.take_last(buf[at : at + size])
                else:
                    call.take_message(buf[at : at + size])
            elif kind == _STATUS:
                del calls[handle]
                call.take_status(buf[at : at + size])
            elif kind == lib.LR_K_HEADERS:
                call.take_headers(buf[at : at + size])
            elif kind == lib.LR_K_BIG:
                self._take_big(call, handle, size)
            elif kind == lib.LR_K_RESET:
                text = buf[at : at + size].decode("utf-8", "replace")
                call.take_reset(status.code_of(head), text, bool(flags & lib.LR_F_UNSEEN))
            elif kind == lib.LR_K_ROOM:
                call.room_came()
            elif kind == lib.LR_K_ENDED:
                call.expire()
            elif kind < 0:
                call.fail(kind, size)
        load = self.load
        if load is not None and (ended := before - len(calls)) > 0:
            load.completed(monotonic_ns(), ended)

    def _take_big(self, call: Caller, handle: int, size: int) -> None:
        try:
            message = blank(size)
        except MemoryError:
            call.no_memory(size)
            return
        if fill(self.engine, handle, message, 1) == 0:
            call.take_message(message)

    def _end(self) -> None:
        if not self._lost:
            self._lost = True
            self.detach()
            self._wake()
            on_lost = self._on_lost()
            if on_lost is not None:
                on_lost(self)


_WHOLE = int(lib.LR_F_MESSAGE | lib.LR_F_END)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)

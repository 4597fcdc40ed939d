"""An engine that an event loop drives: the loop watches its descriptor, and no thread waits.

See api.h for lr_drain(). Everything here is for the loop's own thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import partial
from typing import Any

from localrpc.drive.core import ffi, lib, own_engine
from localrpc.drive.spinning import spinner_of
from localrpc.options import Options

NEWS = struct.Struct("<QqqiIiIII")
"""`struct lr_news`: call, size, deadline, kind, flags, method, head, conn, at."""
_SIZE = NEWS.size
_unpack = NEWS.iter_unpack

News = Iterator[tuple[int, int, int, int, int, int, int, int, int]]


class _Batch:
    """A `struct lr_batch`, its news as a buffer, and the bytes that the core writes into."""

    __slots__ = ("_hold", "buf", "news", "raw")

    def __init__(self) -> None:
        # As in Io: no other code refers to this bytes object while the core writes into it.
        self.buf = bytes(lib.LR_NEWS_BUFFER)
        self._hold = ffi.from_buffer("char[]", self.buf)
        self.raw: Any = ffi.new("struct lr_batch *")
        self.raw.buf = ffi.cast("uint8_t *", self._hold)
        self.raw.cap = lib.LR_NEWS_BUFFER
        self.news: Any = ffi.buffer(ffi.addressof(self.raw.news), _SIZE * lib.LR_NEWS)


class LoopEngine(ABC):
    """A core engine whose news go to take() on the thread of the loop that it is attached to.

    The loop holds it only weakly: it ends with its last reference elsewhere.
    """

    @abstractmethod
    def take(self, news: News, buf: bytes) -> None:
        """Process the news of one drain; `at` refers to bytes of `buf`, which are to be copied."""

    def __init__(self, role: int, options: Options, max_calls: int) -> None:
        raw = lib.lr_engine_new(role, options.window, options.max_receive, max_calls)
        if raw == ffi.NULL:
            raise MemoryError(f"no engine for an event loop: {os.strerror(ffi.errno)}")
        self.engine: Any = own_engine(raw)
        self._fd = lib.lr_loop_begin(raw)
        if self._fd < 0:
            raise MemoryError("no timer for an event loop")
        self._batch = _Batch()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()
        self._drain_again = partial(_drain, weakref.ref(self))
        self._flush_later = partial(_flush, weakref.ref(self))
        self._turn = False
        """True while lr_flush() is to end a turn of the loop.

        A turn that it does not end, since the loop has stopped or a callback was lost by an
        exception, the core ends.
        """

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have `loop` watch the engine."""
        self._loop = loop
        self._thread = threading.get_ident()
        loop.add_reader(self._fd, self._drain_again)
        spinner = spinner_of(loop)
        if spinner is not None:
            spinner.watch(self._fd, self.engine, self._drain_again)

    def detach(self) -> None:
        """Stop watching; necessary before close(), which closes the descriptor. Idempotent."""
        loop, self._loop = self._loop, None
        if loop is not None and not loop.is_closed() and os.getpid() == self._pid:
            _forget(loop, self._fd)

    def close(self) -> None:
        """End all connections. Idempotent."""
        self.detach()
        lib.lr_engine_close(self.engine)

    def sending(self) -> None:
        """Call before frames are sent: what is sent in one turn of the loop wakes a peer once."""
        loop = self._loop
        if not self._turn and loop is not None and not loop.is_closed():
            loop.call_soon(self._flush_later)
            self._turn = True

    def __del__(self) -> None:
        # Also called for an object whose __init__ has failed.
        loop = self.__dict__.get("_loop")
        if loop is None or loop.is_closed() or os.getpid() != self._pid:
            return
        if self._thread == threading.get_ident():
            _forget(loop, self._fd)
            return
        with contextlib.suppress(RuntimeError):  # closed meanwhile
            # The engine, and its descriptor with it, live until the loop has forgotten them.
            loop.call_soon_threadsafe(_forget, loop, self._fd, self.engine)

    def drain(self) -> None:
        """Take what has come, without waiting; take more in the loop's next turn."""
        batch = self._batch
        count = lib.lr_drain(self.engine, batch.raw)
        more = batch.raw.more
        try:
            if count > 0:
                self._take_all(_unpack(batch.news[: count * _SIZE]), batch)
        finally:
            if more and self._loop is not None:
                self._loop.call_soon(self._drain_again)

    def _take_all(self, news: News, batch: _Batch) -> None:
        """Take news; what follows a piece that raises an exception is taken later.

        A handler may raise SystemExit or KeyboardInterrupt, as the handler of a signal may: the
        loop stops with these, but may run again, if only to close.
        """
        self._turn = True
        try:
            self.take(news, batch.buf)
        except BaseException:
            if self._batch is batch:
                self._batch = _Batch()
            if self._loop is not None:
                self._loop.call_soon(_take_rest, weakref.ref(self), news, batch)
            raise
        finally:
            # Also of a turn that had begun before: its frames leave a little earlier.
            self._turn = False
            lib.lr_flush(self.engine)


def _take_rest(ref: weakref.ref[LoopEngine], news: News, batch: _Batch) -> None:
    engine = ref()
    if engine is not None and engine._loop is not None:
        engine._take_all(news, batch)


def _flush(ref: weakref.ref[LoopEngine]) -> None:
    engine = ref()
    if engine is not None:
        engine._turn = False
        lib.lr_flush(engine.engine)


def _forget(loop: asyncio.AbstractEventLoop, fd: int, _engine: Any = None) -> None:
    loop.remove_reader(fd)
    spinner = spinner_of(loop)
    if spinner is not None:
        spinner.forget(fd)


def _drain(ref: weakref.ref[LoopEngine]) -> None:
    engine = ref()
    if engine is not None and engine._loop is not None:
        engine.drain()

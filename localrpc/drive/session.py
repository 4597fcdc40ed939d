"""A client's protocol state on one link."""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic_ns
from typing import Any

from localrpc import _locks
from localrpc.address import Address
from localrpc.drive.core import Io, ffi, lib, own_engine, publish
from localrpc.drive.finalizers import start_unwaited
from localrpc.options import Options
from localrpc.transports.base import Connection

_FINISHED = (lib.LR_CLOSED, lib.LR_FORKED, lib.LR_K_STOP)


class Session:
    """An engine with one connection.

    No background thread reads the link, with one exception: while a call has done callbacks, or the
    channel has connectivity subscribers, a daemon thread waits in the core for them. That thread
    calls `on_lost` with the session when the link has ended; `on_lost` must not hold the holder of
    the session.
    """

    def __init__(
        self,
        connection: Connection,
        address: Address,
        options: Options,
        on_lost: Callable[[Session], None],
    ) -> None:
        self._on_lost = on_lost
        self.connection = connection
        raw = lib.lr_engine_new(lib.LR_CLIENT, options.window, options.max_receive, -1)
        if raw == ffi.NULL:
            reason = os.strerror(ffi.errno)
            connection.close()
            raise MemoryError(f"no engine for a connection: {reason}")
        self.engine: Any = own_engine(raw)
        publish(raw, str(address))
        result = lib.lr_engine_add(self.engine, connection.link.take(), connection.hello.window)
        if result < 0:
            raise MemoryError(f"the core refused the connection: {self.reason()}")
        self._lock = _locks.RLock()
        """Reentrant, because a user's finalizer may end a call anywhere."""
        self._watched: dict[int, Callable[[], None]] = {}
        self._guarded = False
        self._watching = False
        self._dead = False
        self.inherited = False
        """True in a forked child: no thread of this process uses the session."""
        self._declared: set[int] = set()
        self.load: Any = None
        """What is in progress on it, a calls.choosing.Load, if its channel has a choice."""

    def alive(self) -> bool:
        """Return True if new calls may be made; False also while the peer stops gracefully."""
        return bool(lib.lr_engine_alive(self.engine) == 1)

    def look(self) -> bool:
        """Like alive(), after a look at the link, which no thread reads while there is no call."""
        return bool(lib.lr_engine_look(self.engine) == 1)

    def declare(self, number: int, name: bytes) -> None:
        """Declare the name of method `number` to the engine, and so to the peer."""
        if number in self._declared:
            return
        with self._lock:
            if (
                number not in self._declared
                and lib.lr_method(self.engine, number, name, len(name)) == 0
            ):
                self._declared.add(number)

    def count(self, change: int = 1, *, streams: bool = False) -> None:
        """Note that a call has begun here, or with -1 that it has ended. For any thread."""
        load = self.load
        if load is None:
            return
        counted = load.streams if streams else load.calls
        if change > 0:
            counted.append(None)
        elif counted:  # none, if this session was chosen from only after the call had begun
            counted.pop()
            if not streams:
                load.completed(monotonic_ns())

    def close(self) -> None:
        """End the connection; calls in flight end with LR_CLOSED."""
        lib.lr_engine_close(self.engine)

    def disown(self) -> None:
        """Close a forked child's copy of the parent's link, without telling the peer."""
        self.inherited = True
        lib.lr_engine_disown(self.engine)

    def reason(self) -> str:
        """Return why the link has ended."""
        text = ffi.new("char[]", 200)
        lib.lr_engine_error(self.engine, text, 200)
        return bytes(ffi.string(text)).decode("utf-8", "replace")

    def faulty(self) -> bool:
        """Return True if the link failed on this side, for example because a disk was full."""
        return bool(lib.lr_engine_faulty(self.engine) > 0)

    def watch(self, handle: int, deadline: int, poll: Callable[[], None]) -> None:
        """Run `poll` on a background thread once the end of the call can be seen."""
        with self._lock:
            dead = self._dead
            if not dead:
                self._watched[handle] = poll
                self._start()
        if dead or lib.lr_watch(self.engine, handle, deadline) < 0:
            self.unwatch(handle)
            poll()

    def unwatch(self, handle: int) -> None:
        with self._lock:
            if self._watched.pop(handle, None) is None:
                return
        lib.lr_kick(self.engine)

    def guard(self, *, wanted: bool) -> None:
        """Call `on_lost` as soon as the link ends, instead of at the next call."""
        with self._lock:
            if self._guarded == wanted:
                return
            self._guarded = wanted
            if wanted and not self._dead:
                self._start()
        if not wanted:
            lib.lr_kick(self.engine)

    def _start(self) -> None:
        if self._watching:
            return
        self._watching = True
        try:
            start_unwaited(self._watch, "localrpc-watch")
        except RuntimeError:  # the interpreter is exiting
            self._watching = False

    def _watch(self) -> None:
        io = Io()
        while True:
            kind = lib.lr_service(self.engine, io.raw)
            if kind in _FINISHED:
                break
            if kind == lib.LR_K_ENDED:
                with self._lock:
                    poll = self._watched.pop(io.raw.call, None)
                if poll is not None:
                    poll()
                    del poll  # or its call would live as long as this thread sleeps
            with self._lock:
                if not self._watched and not self._guarded:
                    self._watching = False
                    return
        with self._lock:
            self._dead = True
            self._watching = False
            left = list(self._watched.values())
            self._watched.clear()
        for poll in left:
            poll()
        self._on_lost(self)

"""A server's methods that have been called, and the numbers by which the core knows them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from localrpc import _locks
from localrpc.calls.handlers import HandlerTable, MethodHandler, behaviour_of
from localrpc.calls.incoming import LONG_NAME
from localrpc.drive.core import WorkerIo, ffi, lib


def _as_it_is(message: Any) -> Any:
    return message


class Entry:
    """A method that has a number; `handler` is None if it has to be looked up for each call."""

    __slots__ = ("behaviour", "deserialize", "handler", "name", "plain", "serialize")

    def __init__(self, name: str, handler: MethodHandler | None) -> None:
        self.name = name
        self.handler = handler
        self.plain = False
        """True for a unary method on the server's own pool: it has the next three attributes."""
        if handler is None or handler.request_streaming or handler.response_streaming:
            return
        self.behaviour: Any = handler.unary_unary
        if pool_of(self.behaviour) is not None or len(name) >= LONG_NAME:
            return
        self.deserialize: Callable[[bytes], Any] = handler.request_deserializer or _as_it_is
        self.serialize: Callable[[Any], Any] = handler.response_serializer or _as_it_is
        self.plain = True


class Methods:
    """The methods of one server. Thread-safe. A method that has been called keeps its handler."""

    def __init__(self, table: HandlerTable, *, intercepted: bool) -> None:
        self._table = table
        self.entries: list[Entry] = []
        """Indexed by number."""
        self._intercepted = intercepted
        self._numbers: dict[str, int] = {}
        self._lock = _locks.Lock()

    def learn(self, engine: Any, io: WorkerIo, call: int) -> Entry | None:
        """Return the entry of a method that has no number yet; its name overwrites `io.buf`.

        Return None for a call that has ended, or has no method.
        """
        room = ffi.cast("char *", io.raw.buf)
        size = lib.lr_call_method(engine, call, room, io.raw.cap)
        if size < 0:
            return None
        raw = io.buf[:size]
        name = raw.decode("utf-8", "replace")
        handler = self._table.by_name(name)
        if handler is None:
            return Entry(name, None)
        entry = Entry(name, None if self._intercepted else handler)
        with self._lock:
            # Two threads may learn the same method at once.
            number = self._numbers.setdefault(name, len(self.entries))
            if number == len(self.entries):
                self.entries.append(entry)
        lib.lr_intern(engine, raw, len(raw), number)
        return entry


def has_other_pools(table: HandlerTable) -> bool:
    """Return True if a handler that is known by name has to run on a pool of its own."""
    return any(pool_of(behaviour_of(handler)) for handler in table.known())


def pool_of(behaviour: Any) -> ThreadPoolExecutor | None:
    """Return the pool on which a user's function has to run; None for the server's pool."""
    pool = getattr(behaviour, "experimental_thread_pool", None)
    return pool if isinstance(pool, ThreadPoolExecutor) else None

"""Turns a new call from the core into what a handler is given, for any API.

A call whose metadata or message cannot be accepted gets its status here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from time import monotonic_ns
from typing import Any, Generic, TypeVar

from localrpc import status
from localrpc.calls import texts
from localrpc.calls.incoming import LONG_NAME, refusal
from localrpc.drive.core import NOW, WorkerIo, blank, lib
from localrpc.drive.methods import Entry, Methods
from localrpc.drive.reading import fill, receive
from localrpc.drive.served import ServedCall
from localrpc.drive.serving import Serving
from localrpc.transports.base import Connection

CALL = struct.Struct("<QqIIIiIIq")
"""call, size, kind, count, flags, method, head, conn, deadline: the beginning of struct lr_io."""

_BIG_PATIENCE = 2_000_000
"""Nanoseconds that a worker waits for the rest of a large request before it takes another call."""
_AT_ONCE = 16 << 20
"""Bytes; a worker does not wait for the rest of a request larger than this."""
_DEFERRED = 64
"""Number of postponed calls at which those that have ended are looked for and dropped."""

Served = TypeVar("Served", bound=ServedCall)
MakeContext = Callable[[Serving, int, "Connection | None", bytes, int], Served]


Arrival = tuple[Entry, Served, int, "bytes | None"]
"""A call: its method, its context, its flags (`LR_F_…`), and its message if it has one."""


class Arrivals(Generic[Served]):
    """Accepts the new calls of one server; `make` creates their contexts. Thread-safe."""

    def __init__(self, methods: Methods, make: MakeContext[Served]) -> None:
        self._methods = methods
        self._make = make
        self._deferred: dict[int, Served] = {}

    def take(self, serving: Serving, io: WorkerIo) -> Arrival[Served] | None:
        """Return the call in `io`; None if it was postponed, or has already got its status."""
        call, size, _, _, flags, method, head, conn, deadline = CALL.unpack_from(io.view)
        block = io.buf[:head]
        data: bytes | None = io.buf[head:size] if flags & lib.LR_F_MESSAGE else None
        if flags & lib.LR_F_TOO_LARGE:
            data = None
        context = self._deferred.pop(call, None)
        begins = context is None
        if context is None:
            context = self._make(serving, call, serving.connection(conn), block, deadline)
        methods = self._methods
        entry = methods.entries[method] if method >= 0 else methods.learn(serving.engine, io, call)
        if entry is None:
            context.refuse(*texts.NAMELESS)
            return None
        if begins and (head > serving.metadata_limits.light or len(entry.name) >= LONG_NAME):
            refused = refusal(serving.metadata_limits, entry.name, context.agent, block)
            if refused is not None:
                context.refuse(*refused)
                return None
        if flags & lib.LR_F_BIG and not flags & lib.LR_F_TOO_LARGE:
            try:
                data = _whole(serving.engine, call, is_here=not begins)
            except MemoryError as error:
                context.refuse(status.RESOURCE_EXHAUSTED, str(error))
                return None
            if data is None:
                self._defer(serving, call, context)
                return None
            flags |= lib.LR_F_MESSAGE
        if flags & lib.LR_F_TOO_LARGE:
            context.refuse(*texts.request_too_large(size, serving.options.max_receive))
            return None
        return entry, context, flags, data

    def _defer(self, serving: Serving, call: int, context: Served) -> None:
        """Have the core deliver the call again, without metadata, once its message is complete."""
        if len(self._deferred) >= _DEFERRED:
            # Calls that ended before their message was complete are never delivered again.
            for other in list(self._deferred):
                if lib.lr_active(serving.engine, other) != 1:
                    self._deferred.pop(other, None)
        self._deferred[call] = context
        lib.lr_defer(serving.engine, call)


def _whole(engine: Any, call: int, *, is_here: bool) -> bytes | None:
    """Return the message of a large request.

    Return None unless the message `is_here` already, or comes at once. Raises MemoryError, whose
    text is the details of the call's status.
    """
    kind, content = receive(engine, call, NOW if is_here else monotonic_ns() + _BIG_PATIENCE)
    if kind != lib.LR_K_BIG or (content > _AT_ONCE and not is_here):
        return None
    try:
        message = blank(content)
    except MemoryError:
        raise MemoryError(texts.no_memory(content)) from None
    kind = fill(engine, call, message, NOW if is_here else monotonic_ns() + _BIG_PATIENCE)
    return message if kind == 0 else None

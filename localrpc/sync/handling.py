"""From an incoming call to its handler and back, with grpcio's words for what goes wrong.

`Handling.accept` is the hot path: a unary call whose method is known, and whose
reply is a message and nothing else. Everything else takes `serve`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from contextvars import Context
from functools import partial
from time import monotonic_ns
from typing import Any, NamedTuple

import grpc

from localrpc import _log, status
from localrpc.drive.core import NOW, WorkerIo, blank, ffi, lib
from localrpc.drive.executors import submit
from localrpc.drive.reading import fill, no_memory, receive
from localrpc.drive.serving import Serving
from localrpc.errors import RemoteProtocolError
from localrpc.sync import behaviour
from localrpc.sync.behaviour import MethodHandler
from localrpc.sync.context import ServicerContext
from localrpc.sync.nonblocking import pool_of

_logger = _log.logger("server")

# call, size, kind, count, flags, method, head, conn, deadline of struct lr_io.
_CALL = struct.Struct("<QqIIIiIIq")

_PLAIN = lib.LR_F_MESSAGE | lib.LR_F_END
_KNOWN = _PLAIN | lib.LR_F_BIG | lib.LR_F_REFUSED | lib.LR_F_TOO_LARGE
_BIG_PATIENCE = 2_000_000
"""Nanoseconds that a worker waits for the rest of a large request before it takes another call."""
_AT_ONCE = 16 << 20
"""Bytes of a request whose worker waits at all: more takes longer than that."""


_LONG_NAME = 512

_DEFERRED = 64
"""How many calls may be put off before we look for those that have ended."""


class _HandlerCallDetails(
    NamedTuple("_HandlerCallDetails", [("method", str), ("invocation_metadata", Any)]),
    grpc.HandlerCallDetails,
):
    """What generic handlers and server interceptors are shown."""


def _as_it_is(message: Any) -> Any:
    return message


class Entry:
    """A method that has a number; `handler` is None when every call must look for it anew."""

    __slots__ = ("behaviour", "deserialize", "handler", "name", "plain", "serialize")

    def __init__(self, name: str, handler: MethodHandler | None) -> None:
        self.name = name
        self.handler = handler
        self.plain = False
        if handler is None or handler.request_streaming or handler.response_streaming:
            return
        self.behaviour: Any = handler.unary_unary
        if pool_of(self.behaviour) is not None or len(name) >= _LONG_NAME:
            return
        self.deserialize: Any = handler.request_deserializer or _as_it_is
        self.serialize: Any = handler.response_serializer or _as_it_is
        self.plain = True


class Handling:
    """The handlers of one server, and how calls reach them."""

    def __init__(
        self,
        handlers: Iterable[grpc.GenericRpcHandler],
        interceptors: Sequence[grpc.ServerInterceptor],
        max_send: int,
    ) -> None:
        self.generic: list[grpc.GenericRpcHandler] = list(handlers)
        self.registered: dict[str, MethodHandler] = {}
        self._interceptors = tuple(interceptors)
        self._entries: list[Entry] = []
        self._numbers: dict[str, int] = {}
        self._max_send = max_send
        self._deferred: dict[int, ServicerContext] = {}

    def acceptor(self, serving: Serving) -> Callable[[WorkerIo], int]:
        """A function that serves the call in an Io and brings the kind of what came next."""
        engine = serving.engine
        entries = self._entries
        connections = serving.connections
        unpack = _CALL.unpack_from
        reply_next, lr_next = lib.lr_reply_next, lib.lr_next
        alone = lib.LR_F_ALONE
        limited = self._max_send >= 0
        light = serving.metadata_limits.light

        def accept(io: WorkerIo) -> int:
            raw, buf = io.raw, io.buf
            call, size, _, _, flags, method, head, conn, deadline = unpack(io.view)
            if flags & alone:
                serving.spare()
            if method >= 0 and flags & _KNOWN == _PLAIN:
                entry = entries[method]
                if entry.plain and not limited and head <= light:
                    connection = connections.get(conn)
                    context = ServicerContext(
                        serving, call, connection, buf[:head] if head else b"", deadline
                    )
                    run = Context().run
                    data = buf[head:size]
                    try:
                        request = entry.deserialize(data)
                    except Exception:
                        request = None
                    if request is None:
                        self.serve(serving, entry, context, flags, data, run)
                        del connection, context, data, run
                        return int(lr_next(engine, raw))
                    message = behaviour.call_plain(run, entry, request, context)
                    # The next call may be long in coming, and nobody needs these any more.
                    del connection, context, data, request, run
                    if message is not None:
                        return int(reply_next(engine, raw, message, len(message)))
                    return int(lr_next(engine, raw))
            ready = self.take(serving, io)
            if ready is not None:
                ready()
                del ready
            return int(lr_next(engine, raw))

        return accept

    def take(self, serving: Serving, io: WorkerIo) -> Callable[[], None] | None:
        """The call in `io` as something to run, on any thread; None when there is no more to do."""
        arrival = self._arrival(serving, io)
        if arrival is None:
            return None
        return partial(self.serve, serving, *arrival, Context().run)

    def place(
        self, serving: Serving, io: WorkerIo
    ) -> tuple[Executor | None, Callable[[], None]] | None:
        """As take(), for a thread that serves no calls: also another pool that is to run it.

        So interceptors run on that thread, as in grpcio.
        """
        arrival = self._arrival(serving, io)
        if arrival is None:
            return None
        run = Context().run
        task = self._task(*arrival, run)
        return None if task is None else (pool_of(task.behaviour), partial(run, task.run))

    def _arrival(
        self, serving: Serving, io: WorkerIo
    ) -> tuple[Entry, ServicerContext, int, bytes | None] | None:
        """Entry, context, flags and message of the call in `io`; None when it has been put off."""
        call, size, _, _, flags, method, head, conn, deadline = _CALL.unpack_from(io.view)
        block = io.buf[:head]
        data: bytes | None = io.buf[head:size] if flags & lib.LR_F_MESSAGE else None
        if flags & lib.LR_F_TOO_LARGE:
            data = None
        context = self._deferred.pop(call, None)
        begins = context is None
        if context is None:
            connection = serving.connection(conn)
            context = ServicerContext(serving, call, connection, block, deadline)
        entry = self._entries[method] if method >= 0 else self._learn(serving, io, call)
        if entry is None:
            context.refuse(status.INTERNAL, "a call without a method")
            return None
        if begins and not self._acceptable(serving, entry.name, context, block):
            return None
        if flags & lib.LR_F_BIG and not flags & lib.LR_F_TOO_LARGE:
            try:
                data = _whole(serving.engine, call, is_here=not begins)
            except MemoryError as error:
                context.refuse(status.RESOURCE_EXHAUSTED, str(error))
                return None
            if data is None:
                self._defer(serving, context)
                return None
            flags |= lib.LR_F_MESSAGE
        if flags & lib.LR_F_TOO_LARGE:
            limit = serving.options.max_receive
            text = f"SERVER: Received message larger than max ({size} vs. {limit})"
            context.refuse(status.RESOURCE_EXHAUSTED, text)
            return None
        return entry, context, flags, data

    def _acceptable(
        self, serving: Serving, name: str, context: ServicerContext, block: bytes
    ) -> bool:
        """Whether the call's metadata is: else that is its end."""
        limits = serving.metadata_limits
        if len(block) <= limits.light and len(name) < _LONG_NAME:
            return True
        try:
            pairs = context.invocation_metadata()
        except RemoteProtocolError as error:
            context.refuse(status.INTERNAL, str(error))
            return False
        text = limits.excess([(":path", name), *pairs])
        if text:
            context.refuse(status.RESOURCE_EXHAUSTED, text)
        return text is None

    def _defer(self, serving: Serving, context: ServicerContext) -> None:
        """Have the call come again, without its metadata, once its message is whole."""
        if len(self._deferred) >= _DEFERRED:
            # Calls that ended before their message was whole never come again.
            for call in list(self._deferred):
                if lib.lr_active(serving.engine, call) != 1:
                    self._deferred.pop(call, None)
        self._deferred[context._call] = context
        lib.lr_defer(serving.engine, context._call)

    def _learn(self, serving: Serving, io: WorkerIo, call: int) -> Entry | None:
        """The entry of a method that has no number yet; its name overwrites what `io` brought."""
        room = ffi.cast("char *", io.raw.buf)
        size = lib.lr_call_method(serving.engine, call, room, io.raw.cap)
        if size < 0:
            return None
        raw = io.buf[:size]
        name = raw.decode("utf-8", "replace")
        handler = self.registered.get(name)
        if handler is None:
            for generic in self.generic:
                if not _is_dictionary(generic):
                    return Entry(name, None)
                handler = generic.service(_HandlerCallDetails(name, ()))
                if handler is not None:
                    break
        if handler is None:
            return Entry(name, None)
        entry = Entry(name, None if self._interceptors else handler)
        with serving.callback_lock:
            # Two calls may learn it at once.
            number = self._numbers.setdefault(name, len(self._entries))
            if number == len(self._entries):
                self._entries.append(entry)
        lib.lr_intern(serving.engine, raw, len(raw), number)
        return entry

    def look_up(
        self, details: grpc.HandlerCallDetails, name: str | None = None
    ) -> MethodHandler | None:
        """The handler of a call; `name` is its method if an interceptor has changed `details`."""
        registered = self.registered.get(name or details.method)
        if registered is not None:
            return registered
        for generic in self.generic:
            handler = generic.service(details)
            if handler is not None:
                return handler
        return None

    def _find(self, name: str, context: ServicerContext) -> Any:
        details = _HandlerCallDetails(name, context.invocation_metadata())
        return self._intercept(0, name, details)

    def _intercept(self, index: int, name: str, details: grpc.HandlerCallDetails) -> Any:
        if index == len(self._interceptors):
            return self.look_up(details, name)
        # Not a function in a function, which would hold itself.
        following = partial(self._intercept, index + 1, name)
        return self._interceptors[index].intercept_service(following, details)

    def serve(
        self,
        serving: Serving,
        entry: Entry,
        context: ServicerContext,
        flags: int,
        data: bytes | None,
        run: Callable[..., Any],
    ) -> None:
        """One call from the search for its handler to its status; lets no exception out."""
        task = self._task(entry, context, flags, data, run)
        if task is None:
            return
        pool = pool_of(task.behaviour)
        if pool is None:
            run(task.run)
        else:
            serving.expect_other_pools()
            submit(pool, partial(run, task.run), serving.engine, context._call)

    def _task(
        self,
        entry: Entry,
        context: ServicerContext,
        flags: int,
        data: bytes | None,
        run: Callable[..., Any],
    ) -> behaviour.Task | None:
        """The call with its handler; None for a call that has got its status instead."""
        handler = entry.handler
        if handler is None:
            try:
                handler = run(self._find, entry.name, context)
            except Exception as error:
                _logger.exception("Exception servicing handler: %s", error)
                context.refuse(status.UNKNOWN, "Error in service handler!")
                return None
        if handler is None:
            context.refuse(status.UNIMPLEMENTED, "Method not found!")
        elif flags & lib.LR_F_REFUSED:
            context.refuse(status.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!")
        else:
            return behaviour.Task(context, handler, entry.name, self._max_send, flags, data)
        return None

    def has_other_pools(self) -> bool:
        """Whether a handler that is known by its name wants to run on a pool of its own."""
        handlers = list(self.registered.values())
        for generic in self.generic:
            if _is_dictionary(generic):
                handlers.extend(getattr(generic, "_method_handlers", {}).values())
        return any(pool_of(behaviour.of(handler)) for handler in handlers)


def _is_dictionary(generic: grpc.GenericRpcHandler) -> bool:
    """Whether a handler's answer depends on the method's name alone."""
    return type(generic) is _DICTIONARY


_DICTIONARY = type(grpc.method_handlers_generic_handler("", {}))


def _whole(engine: Any, call: int, *, is_here: bool) -> bytes | None:
    """A large request's message; None unless it `is_here`, or comes at once.

    Raises MemoryError, with the details of the call's end.
    """
    kind, content = receive(engine, call, NOW if is_here else monotonic_ns() + _BIG_PATIENCE)
    if kind != lib.LR_K_BIG or (content > _AT_ONCE and not is_here):
        return None
    try:
        message = blank(content)
    except MemoryError:
        raise MemoryError(no_memory(content)) from None
    kind = fill(engine, call, message, NOW if is_here else monotonic_ns() + _BIG_PATIENCE)
    return message if kind == 0 else None

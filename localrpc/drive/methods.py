"""A server's methods: handlers by name, and the numbers by which the core knows some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from localrpc import _locks
from localrpc.drive.core import WorkerIo, ffi, lib

if TYPE_CHECKING:
    MethodHandler = grpc.RpcMethodHandler[Any, Any]
else:
    MethodHandler = grpc.RpcMethodHandler  # grpcio's own takes no parameters

LONG_NAME = 512
"""Bytes; a longer method name counts toward the size limit of a call's metadata."""


class CallDetails(
    NamedTuple("CallDetails", [("method", str), ("invocation_metadata", Any)]),
    grpc.HandlerCallDetails,
):
    """What generic handlers and server interceptors are given about a call."""


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
    """The handlers of one server. Thread-safe.

    The server adds to `generic` and `registered`; a method that has been called keeps its handler.
    """

    def __init__(self, handlers: Iterable[grpc.GenericRpcHandler], *, intercepted: bool) -> None:
        self.generic: list[grpc.GenericRpcHandler] = list(handlers)
        self.registered: dict[str, MethodHandler] = {}
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
        handler = self.registered.get(name)
        if handler is None:
            for generic in self.generic:
                if not _is_dictionary(generic):
                    return Entry(name, None)
                handler = generic.service(CallDetails(name, ()))
                if handler is not None:
                    break
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

    def look_up(
        self, details: grpc.HandlerCallDetails, name: str | None = None
    ) -> MethodHandler | None:
        """Return a call's handler; `name` is its method if an interceptor has changed `details`."""
        registered = self.registered.get(name or details.method)
        if registered is not None:
            return registered
        for generic in self.generic:
            handler = generic.service(details)
            if handler is not None:
                return handler
        return None

    def has_other_pools(self) -> bool:
        """Return True if a handler that is known by name has to run on a pool of its own."""
        handlers = list(self.registered.values())
        for generic in self.generic:
            if _is_dictionary(generic):
                handlers.extend(getattr(generic, "_method_handlers", {}).values())
        return any(pool_of(behaviour_of(handler)) for handler in handlers)


def validate(handlers: Iterable[grpc.GenericRpcHandler]) -> None:
    """Raise AttributeError, as grpcio does, if a handler is not a generic handler."""
    for handler in handlers:
        if getattr(handler, "service", None) is None:
            raise AttributeError(
                # No space after "to", as in grpcio.
                f'"{handler}" must conform togrpc.GenericRpcHandler type but does not have'
                ' "service" method!'
            )


def behaviour_of(handler: Any) -> Any:
    """Return the user's function of a handler of any kind."""
    if handler.response_streaming:
        return handler.stream_stream if handler.request_streaming else handler.unary_stream
    return handler.stream_unary if handler.request_streaming else handler.unary_unary


def pool_of(behaviour: Any) -> ThreadPoolExecutor | None:
    """Return the pool on which a user's function has to run; None for the server's pool."""
    pool = getattr(behaviour, "experimental_thread_pool", None)
    return pool if isinstance(pool, ThreadPoolExecutor) else None


def _is_dictionary(generic: grpc.GenericRpcHandler) -> bool:
    """Return True if the handlers that `generic` returns depend on the method's name alone."""
    return type(generic) is _DICTIONARY


_DICTIONARY = type(grpc.method_handlers_generic_handler("", {}))

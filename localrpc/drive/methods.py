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
"""Bytes of a name from which on it counts among the metadata that a server accepts."""


class CallDetails(
    NamedTuple("CallDetails", [("method", str), ("invocation_metadata", Any)]),
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
        """Whether the three that follow are there: a unary method for the server's own pool."""
        if handler is None or handler.request_streaming or handler.response_streaming:
            return
        self.behaviour: Any = handler.unary_unary
        if pool_of(self.behaviour) is not None or len(name) >= LONG_NAME:
            return
        self.deserialize: Callable[[bytes], Any] = handler.request_deserializer or _as_it_is
        self.serialize: Callable[[Any], Any] = handler.response_serializer or _as_it_is
        self.plain = True


class Methods:
    """The handlers of one server. Any thread may ask.

    `generic` and `registered` are the server's to extend; a method that has been called
    keeps its handler.
    """

    def __init__(self, handlers: Iterable[grpc.GenericRpcHandler], *, intercepted: bool) -> None:
        self.generic: list[grpc.GenericRpcHandler] = list(handlers)
        self.registered: dict[str, MethodHandler] = {}
        self.entries: list[Entry] = []
        """By number."""
        self._intercepted = intercepted
        self._numbers: dict[str, int] = {}
        self._lock = _locks.Lock()

    def learn(self, engine: Any, io: WorkerIo, call: int) -> Entry | None:
        """The entry of a method that has no number yet; its name overwrites what `io` brought.

        None for a call that has ended, or has no method.
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
            # Two calls may learn it at once.
            number = self._numbers.setdefault(name, len(self.entries))
            if number == len(self.entries):
                self.entries.append(entry)
        lib.lr_intern(engine, raw, len(raw), number)
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

    def has_other_pools(self) -> bool:
        """Whether a handler that is known by its name wants to run on a pool of its own."""
        handlers = list(self.registered.values())
        for generic in self.generic:
            if _is_dictionary(generic):
                handlers.extend(getattr(generic, "_method_handlers", {}).values())
        return any(pool_of(behaviour_of(handler)) for handler in handlers)


def validate(handlers: Iterable[grpc.GenericRpcHandler]) -> None:
    """Raises AttributeError, as grpcio, for one that is not a generic handler."""
    for handler in handlers:
        if getattr(handler, "service", None) is None:
            raise AttributeError(
                # No space after "to", as in grpcio.
                f'"{handler}" must conform togrpc.GenericRpcHandler type but does not have'
                ' "service" method!'
            )


def behaviour_of(handler: Any) -> Any:
    """What a handler of any kind is to call."""
    if handler.response_streaming:
        return handler.stream_stream if handler.request_streaming else handler.unary_stream
    return handler.stream_unary if handler.request_streaming else handler.unary_unary


def pool_of(behaviour: Any) -> ThreadPoolExecutor | None:
    """Where a handler of any kind wants to run, if not on the server's pool."""
    pool = getattr(behaviour, "experimental_thread_pool", None)
    return pool if isinstance(pool, ThreadPoolExecutor) else None


def _is_dictionary(generic: grpc.GenericRpcHandler) -> bool:
    """Whether a handler's answer depends on the method's name alone."""
    return type(generic) is _DICTIONARY


_DICTIONARY = type(grpc.method_handlers_generic_handler("", {}))

"""A server's handlers by method name, as grpc's functions for adding them see them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

if TYPE_CHECKING:
    MethodHandler = grpc.RpcMethodHandler[Any, Any]
else:
    MethodHandler = grpc.RpcMethodHandler  # grpcio's own takes no parameters


class CallDetails(
    NamedTuple("CallDetails", [("method", str), ("invocation_metadata", Any)]),
    grpc.HandlerCallDetails,
):
    """What generic handlers and server interceptors are given about a call."""


class HandlerTable(grpc.GenericRpcHandler):
    """The handlers of one server; more may be added at any time.

    It is a generic handler itself: what it finds is what the server has at the time of a call.
    """

    def __init__(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        self._generic: list[grpc.GenericRpcHandler] = []
        self._registered: dict[str, MethodHandler] = {}
        self.add(handlers)

    def add(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Add generic handlers. Raises AttributeError, as grpcio does, if one is none."""
        handlers = list(handlers)
        for handler in handlers:
            if getattr(handler, "service", None) is None:
                raise AttributeError(
                    # No space after "to", as in grpcio.
                    f'"{handler}" must conform togrpc.GenericRpcHandler type but does not have'
                    ' "service" method!'
                )
        self._generic.extend(handlers)

    def register(self, service: str, handlers: Mapping[str, MethodHandler]) -> None:
        """Add the handlers of a service, by method; they precede generic handlers."""
        self._registered.update(
            (f"/{service}/{method}", handler) for method, handler in handlers.items()
        )

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> MethodHandler | None:
        return self.look_up(handler_call_details)

    def look_up(
        self, details: grpc.HandlerCallDetails, name: str | None = None
    ) -> MethodHandler | None:
        """Return a call's handler; `name` is its method if an interceptor has changed `details`."""
        registered = self._registered.get(name or details.method)
        if registered is not None:
            return registered
        for generic in self._generic:
            handler = generic.service(details)
            if handler is not None:
                return handler
        return None

    def by_name(self, name: str) -> MethodHandler | None:
        """Return the handler that every call of a method has; None if it may differ by call."""
        registered = self._registered.get(name)
        if registered is not None:
            return registered
        for generic in self._generic:
            if not _is_dictionary(generic):
                return None
            handler = generic.service(CallDetails(name, ()))
            if handler is not None:
                return handler
        return None

    def services(self) -> set[str]:
        """Return the names of the services of which handlers are known by name."""
        names = {name[1:].rpartition("/")[0] for name in self._registered}
        for generic in tuple(self._generic):
            if isinstance(generic, grpc.ServiceRpcHandler):
                names.add(generic.service_name())
        return names

    def known(self) -> Iterator[MethodHandler]:
        """Yield the handlers that are known by name."""
        yield from tuple(self._registered.values())
        for generic in tuple(self._generic):
            if _is_dictionary(generic):
                yield from getattr(generic, "_method_handlers", {}).values()


def behaviour_of(handler: Any) -> Any:
    """Return the user's function of a handler of any kind."""
    if handler.response_streaming:
        return handler.stream_stream if handler.request_streaming else handler.unary_stream
    return handler.stream_unary if handler.request_streaming else handler.unary_unary


def _is_dictionary(generic: grpc.GenericRpcHandler) -> bool:
    """Return True if the handlers that `generic` returns depend on the method's name alone."""
    return type(generic) is _DICTIONARY


_DICTIONARY = type(grpc.method_handlers_generic_handler("", {}))

"""Interceptors of both sides, `ExceptionToStatusInterceptor`: as with grpcio."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from .scene import SERVICE, TARGETS, Serve, Service, Word, at, by_grpcio, call_everything

LIBRARIES = ("grpc-interceptor",)


def seen(serve: Serve) -> tuple[Any, ...]:
    """What the interceptors of a client and of a server see, and what came of the calls."""
    from grpc_interceptor import ClientInterceptor, ExceptionToStatusInterceptor, ServerInterceptor
    from grpc_interceptor.exceptions import ResourceExhausted

    class Client(ClientInterceptor):
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def intercept(self, method: Any, request: Any, details: grpc.ClientCallDetails) -> Any:
            call = method(request, details)
            self.seen.append((details.method, details.timeout, isinstance(call, grpc.Call)))
            return call

    class Server(ServerInterceptor):
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def intercept(self, method: Any, request: Any, context: Any, method_name: str) -> Any:
            before = context.code(), context._state.code, context._state.client
            try:
                return method(request, context)
            finally:
                after = context.code(), context.details(), context._state.aborted
                self.seen.append((method_name, before, after))

    class Raising(Service):
        def fail(self, request: Word, context: Any) -> Word:
            raise ResourceExhausted("too much")

    client, server = Client(), Server()
    unknown = ExceptionToStatusInterceptor(status_on_unknown_exception=grpc.StatusCode.INTERNAL)
    with serve(Raising().handler(), interceptors=[server, unknown]) as channel:
        came = call_everything(grpc.intercept_channel(channel, client))
    return client.seen, server.seen, came


@pytest.fixture(scope="module")
def with_grpcio() -> Any:
    return seen(by_grpcio)


@pytest.mark.parametrize("target", TARGETS)
def test_grpc_interceptor_s_interceptors_see_what_they_do_with_grpcio(
    target: str, with_grpcio: Any
) -> None:
    client, server, came = seen(at(target))
    assert (client, server, came) == with_grpcio
    assert ["StatusCode.RESOURCE_EXHAUSTED", "too much"] in came
    assert (f"/{SERVICE}/Echo", 20.0, True) in client

"""The asyncio halves of libraries: health checking, reflection, rich status, interceptors of
grpc-interceptor and OpenTelemetry, and the instrumentation of OpenTelemetry and Sentry."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

import localrpc.aio
from localrpc.testing import fresh_target, serving_aio

from .needed import need
from .scene import TARGETS

NEEDED = (
    "grpcio-health-checking",
    "grpcio-reflection",
    "grpcio-status",
    "grpc-interceptor",
    "opentelemetry-instrumentation-grpc",
)
PATIENCE = 20


@pytest.fixture(autouse=True)
def _needed() -> None:
    """The table of libraries has them from the modules that try their synchronous halves."""
    need(NEEDED)


def handler_of(name: str, behaviour: Any) -> grpc.GenericRpcHandler:
    method: Any = grpc.unary_unary_rpc_method_handler(behaviour)
    return grpc.method_handlers_generic_handler("w", {name: method})


@pytest.mark.parametrize("target", TARGETS)
def test_health_is_checked_and_watched(target: str) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
    from grpc_health.v1._async import HealthServicer  # type: ignore[import-untyped]

    states = health_pb2.HealthCheckResponse

    async def run() -> None:
        servicer = HealthServicer()
        await servicer.set("w", states.SERVING)
        async with serving_aio(servicer_of(servicer), target=target) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service="w")
            assert (await stub.Check(request)).status == states.SERVING
            watch = stub.Watch(request, timeout=PATIENCE)
            assert (await watch.read()).status == states.SERVING
            await servicer.enter_graceful_shutdown()
            assert (await watch.read()).status == states.NOT_SERVING
            watch.cancel()

    def servicer_of(servicer: Any) -> Any:
        return lambda server: health_pb2_grpc.add_HealthServicer_to_server(servicer, server)

    asyncio.run(run())


@pytest.mark.parametrize("target", TARGETS)
def test_reflection_lists_services(target: str) -> None:
    from grpc_reflection.v1alpha import (  # type: ignore[import-untyped]
        reflection,
        reflection_pb2,
        reflection_pb2_grpc,
    )

    def add(server: Any) -> None:
        reflection.enable_server_reflection(["some.Service"], server)

    async def run() -> None:
        async with serving_aio(add, target=target) as channel:
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            call = stub.ServerReflectionInfo(iter([request]), timeout=PATIENCE)
            names = [
                each.name async for answer in call for each in answer.list_services_response.service
            ]
            assert names == ["some.Service"]

    asyncio.run(run())


@pytest.mark.parametrize("target", TARGETS)
def test_a_rich_status_arrives(target: str) -> None:
    from google.protobuf import any_pb2, wrappers_pb2
    from google.rpc import code_pb2, status_pb2  # type: ignore[import-untyped]
    from grpc_status import rpc_status  # type: ignore[import-untyped]
    from grpc_status._async import from_call  # type: ignore[import-untyped]

    detail = any_pb2.Any()
    detail.Pack(wrappers_pb2.StringValue(value="why"))
    status = status_pb2.Status(code=code_pb2.ABORTED, message="rich", details=[detail])

    async def fail(request: bytes, context: Any) -> bytes:
        await context.abort_with_status(rpc_status.to_status(status))
        return request

    async def run() -> None:
        async with serving_aio(handler_of("fail", fail), target=target) as channel:
            fails: Any = channel.unary_unary("/w/fail")
            call = fails(b"")
            with pytest.raises(aio.AioRpcError):
                await call
            assert await from_call(call) == status

    asyncio.run(run())


@pytest.mark.parametrize("target", TARGETS)
def test_interceptors_of_grpc_interceptor_turn_exceptions_into_statuses(target: str) -> None:
    from grpc_interceptor import AsyncExceptionToStatusInterceptor, AsyncServerInterceptor
    from grpc_interceptor.exceptions import NotFound

    seen: list[Any] = []

    class Noting(AsyncServerInterceptor):
        async def intercept(self, method: Any, request: Any, context: Any, method_name: str) -> Any:
            seen.append(method_name)
            response = method(request, context)
            return await response if hasattr(response, "__await__") else response

    async def fail(request: bytes, context: Any) -> bytes:
        raise NotFound("not here")

    async def run() -> None:
        interceptors: list[Any] = [AsyncExceptionToStatusInterceptor(), Noting()]
        async with serving_aio(
            handler_of("fail", fail), target=target, interceptors=interceptors
        ) as channel:
            fails: Any = channel.unary_unary("/w/fail")
            with pytest.raises(aio.AioRpcError) as caught:
                await fails(b"")
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            assert caught.value.details() == "not here"

    asyncio.run(run())
    assert seen == ["/w/fail"]


@pytest.mark.parametrize("target", TARGETS)
def test_opentelemetry_joins_the_spans_of_both_sides(target: str) -> None:
    from opentelemetry.instrumentation.grpc import aio_client_interceptors, aio_server_interceptor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))

    async def echo(request: bytes, context: Any) -> bytes:
        await asyncio.sleep(0)
        return request

    async def run(where: str) -> None:
        server = localrpc.aio.server(
            handlers=(handler_of("echo", echo),),
            interceptors=[aio_server_interceptor(tracer_provider=provider)],
        )
        port = server.add_insecure_port(where)
        await server.start()
        async with localrpc.aio.insecure_channel(
            where.replace(":0", f":{port}"),
            interceptors=aio_client_interceptors(tracer_provider=provider),
        ) as channel:
            assert await channel.unary_unary("/w/echo")(b"x", timeout=PATIENCE) == b"x"
        await server.stop(None)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(fresh_target(target, folder)))
    client, server = sorted(spans.get_finished_spans(), key=lambda span: span.kind.name)
    assert (client.kind.name, server.kind.name) == ("CLIENT", "SERVER")
    assert server.parent is not None
    assert client.context is not None
    assert server.parent.span_id == client.context.span_id


async def three_calls(channel: Any) -> None:
    """One that succeeds, a stream, and one that fails."""
    assert await channel.unary_unary("/w/Echo")(b"x") == b"x"
    assert [each async for each in channel.unary_stream("/w/Count")(b"2")] == [b"0", b"1"]
    with pytest.raises(aio.AioRpcError):
        await channel.unary_unary("/w/Refuse")(b"x")


async def echo(request: bytes, context: Any) -> bytes:
    return request


async def count(request: bytes, context: Any) -> Any:
    for number in range(int(request)):
        yield b"%d" % number


async def refuse(request: bytes, context: Any) -> bytes:
    await context.abort(grpc.StatusCode.NOT_FOUND, "not here")
    return request


def three_handlers() -> grpc.GenericRpcHandler:
    unary: Any = grpc.unary_unary_rpc_method_handler
    stream: Any = grpc.unary_stream_rpc_method_handler
    return grpc.method_handlers_generic_handler(
        "w", {"Echo": unary(echo), "Count": stream(count), "Refuse": unary(refuse)}
    )


async def serve_and_call(module: Any, target: str, **named: Any) -> None:
    server = module.server(handlers=(three_handlers(),), interceptors=named.get("server"))
    port = server.add_insecure_port(target)
    if target.endswith(":0"):
        target = f"{target[:-1]}{port}"
    await server.start()
    async with module.insecure_channel(target, interceptors=named.get("client")) as channel:
        await three_calls(channel)
    await server.stop(None)


@pytest.mark.parametrize("target", TARGETS)
def test_opentelemetry_s_instrumentor_records_what_it_does_with_grpc_aio(target: str) -> None:
    from opentelemetry.instrumentation import grpc as otel
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from localrpc.integrations.opentelemetry import LocalrpcInstrumentor

    def tracing() -> tuple[TracerProvider, InMemorySpanExporter]:
        exporter, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        return provider, exporter

    def told(exporter: InMemorySpanExporter) -> list[Any]:
        spans = exporter.get_finished_spans()
        by_id = {span.context.span_id: span.name for span in spans}
        return sorted(
            (
                span.name,
                span.kind.name,
                span.status.status_code.name,
                str(span.attributes.get("rpc.grpc.status_code")),
                str(span.parent and by_id[span.parent.span_id]),
            )
            for span in spans
        )

    provider, theirs = tracing()
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(
            serve_and_call(
                aio,
                f"unix:{directory}/s",
                client=otel.aio_client_interceptors(provider),
                server=[otel.aio_server_interceptor(provider)],
            )
        )
        provider, ours = tracing()
        LocalrpcInstrumentor().instrument(tracer_provider=provider)
        try:
            asyncio.run(serve_and_call(localrpc.aio, fresh_target(target, directory)))
        finally:
            LocalrpcInstrumentor().uninstrument()
        assert told(ours) == told(theirs)
        assert len(told(ours)) == 6
        asyncio.run(serve_and_call(localrpc.aio, fresh_target(target, directory)))
        assert len(told(ours)) == 6, "recorded after uninstrument()"


def test_sentry_is_sent_what_it_is_with_grpc_aio(runtime_directory: str) -> None:
    need(("sentry-sdk",))
    accepted = f"{os.environ['PYTHONWARNINGS']},ignore::Warning:sentry_sdk.utils"
    done = subprocess.run(
        [sys.executable, "-m", "tests.libraries.sentry_aio_app"],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONWARNINGS": accepted},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    theirs, ours = json.loads(done.stdout)
    assert ours == theirs
    assert ["transaction", "grpc.server"] in [item[:2] for item in ours]

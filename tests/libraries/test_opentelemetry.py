"""`opentelemetry-instrument`, `LocalrpcInstrumentor().instrument()`, and OpenTelemetry's own
interceptors: spans as with grpcio."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

import localrpc
from localrpc.testing import serving

from .scene import (
    SERVICE,
    TARGETS,
    Serve,
    Service,
    Word,
    at,
    await_that,
    by_grpcio,
    call_everything,
)

LIBRARIES = ("opentelemetry-instrumentation-grpc", "opentelemetry-distro")

ROOT = Path(__file__).parents[2]
CALLS = 14
"""Of call_everything(); each has a span of the client and one of the server, but one: the server
has no handler for it, and with that nothing to trace."""


class Traces:
    """A separate provider, and the spans that it was given."""

    def __init__(self) -> None:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def spans(self) -> Counter[Any]:
        """The contents of spans, and their parents if they have one; not the peer's identity."""
        await_that(lambda: len(self.exporter.get_finished_spans()) >= 2 * CALLS - 1, "all spans")
        spans = self.exporter.get_finished_spans()
        names = {span.context.span_id: (span.name, span.kind.name) for span in spans}
        return Counter(
            (
                span.name,
                span.kind.name,
                span.status.status_code.name,
                tuple(
                    sorted(
                        (key, value)
                        for key, value in span.attributes.items()
                        if not key.startswith("net.peer") and key != "rpc.user_agent"
                    )
                ),
                tuple(e.attributes["exception.type"].rpartition(".")[2] for e in span.events),
                span.parent and names[span.parent.span_id],
            )
            for span in spans
        )


def intercepted(serve: Serve) -> Counter[Any]:
    from opentelemetry.instrumentation.grpc import client_interceptor, server_interceptor
    from opentelemetry.instrumentation.grpc.grpcext import intercept_channel

    traces = Traces()
    with serve(Service().handler(), interceptors=[server_interceptor(traces.provider)]) as channel:
        call_everything(intercept_channel(channel, client_interceptor(traces.provider)))
        return traces.spans()


@pytest.fixture(scope="module")
def with_grpcio() -> Counter[Any]:
    return intercepted(by_grpcio)


@pytest.mark.parametrize("target", TARGETS)
def test_opentelemetry_s_interceptors_record_what_they_do_with_grpcio(
    target: str, with_grpcio: Counter[Any]
) -> None:
    spans = intercepted(at(target))
    assert spans == with_grpcio
    assert spans.total() == 2 * CALLS - 1
    servers = [span for span in spans if span[1] == "SERVER"]
    assert all(parent == (name, "CLIENT") for name, *_, parent in servers)


@contextmanager
def instrumented(**named: Any) -> Iterator[None]:
    from localrpc.integrations.opentelemetry import LocalrpcInstrumentor

    LocalrpcInstrumentor().instrument(**named)
    try:
        yield
    finally:
        LocalrpcInstrumentor().uninstrument()


@pytest.mark.parametrize("target", TARGETS)
def test_opentelemetry_s_instrumentor_records_the_same(
    target: str, with_grpcio: Counter[Any]
) -> None:
    traces = Traces()
    provider = traces.provider
    with instrumented(tracer_provider=provider), at(target)(Service().handler()) as channel:
        call_everything(channel)
        assert traces.spans() == with_grpcio
    with at(target)(Service().handler()) as channel:
        call_everything(channel)
    assert traces.spans() == with_grpcio, "recorded after uninstrument()"


def test_opentelemetry_s_hooks_and_filters_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry.instrumentation.grpc import filters

    seen: list[Any] = []

    def note(what: str) -> Callable[[Any, Any], None]:
        return lambda span, message: seen.append((what, message))

    def run(**named: Any) -> list[str]:
        traces = Traces()
        hooks = {"request_hook": note("request"), "response_hook": note("response")}
        provider = traces.provider
        with (
            instrumented(tracer_provider=provider, **hooks, **named),
            at("inproc:")(Service().handler()) as channel,
        ):
            channel.unary_unary(f"/{SERVICE}/Echo")(b"x")
            list(channel.unary_stream(f"/{SERVICE}/Count")(b"1"))
        return [span.name for span in traces.exporter.get_finished_spans()]

    only = filters.method_name("Echo")
    assert run(filter_=only) == [f"/{SERVICE}/Echo"] * 2
    assert seen == [("request", b"x"), ("response", b"x")]
    monkeypatch.setenv("OTEL_PYTHON_GRPC_EXCLUDED_SERVICES", f"other.Service, {SERVICE}")
    assert run() == []


def test_without_its_grpc_interceptors_opentelemetry_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.grpc", None)
    monkeypatch.delattr("opentelemetry.instrumentation.grpc", raising=False)
    advice = "pip install opentelemetry-instrumentation-grpc"
    with pytest.raises(ImportError, match=advice) as said, instrumented():
        raise AssertionError("instrumented without interceptors")
    assert type(said.value) is ImportError
    with at("inproc:")(Service().handler()) as channel:
        assert channel.unary_unary(f"/{SERVICE}/Echo")(b"x") == b"x"


def test_opentelemetry_instrument_traces_a_program_that_knows_nothing_of_it(
    with_grpcio: Counter[Any], runtime_directory: str
) -> None:
    """At grpc: targets too, where grpcio's instrumentors record, once and not twice."""
    command = Path(sys.executable).with_name("opentelemetry-instrument")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OTEL_TRACES_EXPORTER": "console",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
    }
    targets = ["shm:", "unix:", "grpc:"]
    program = [sys.executable, "-m", "tests.libraries.otel_app", *targets]
    done = subprocess.run(
        [command, *program], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told, spans = done.stdout.strip(), []
    while told:
        span, end = json.JSONDecoder().raw_decode(told)
        spans.append((span["name"], span["kind"].removeprefix("SpanKind.")))
        told = told[end:].lstrip()
    expected: Counter[Any] = Counter()
    for (name, kind, *_), count in with_grpcio.items():
        expected[name, kind] += count * len(targets)
    assert Counter(spans) == expected


def test_a_channel_by_grpc_s_function_is_traced_once_when_it_is_patched_last(
    monkeypatch: pytest.MonkeyPatch, runtime_directory: str
) -> None:
    from opentelemetry import trace
    from opentelemetry.instrumentation.grpc import GrpcInstrumentorClient

    traces = Traces()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: traces.provider)
    target = f"shm:{runtime_directory}/traced"
    theirs = GrpcInstrumentorClient()
    theirs.instrument()
    undo = localrpc.patch_grpc()
    try:
        with (
            instrumented(),
            serving(Service().handler(), target=target),
            grpc.insecure_channel(target) as channel,
        ):
            echo: Any = channel.unary_unary(f"/{SERVICE}/Echo")
            echo(b"")
    finally:
        undo()
        theirs.uninstrument()
    kinds = [span.kind.name for span in traces.exporter.get_finished_spans()]
    assert kinds == ["SERVER", "CLIENT"]


def test_peer_credentials_are_those_of_a_traced_context() -> None:
    """Tracing wraps the context; the caller is known nevertheless."""
    pids: list[int] = []

    class Asking(Service):
        def fail(self, request: Word, context: Any) -> Word:
            pids.append(localrpc.peer_credentials(context).pid)
            return Word()

    traces = Traces()
    provider = traces.provider
    with instrumented(tracer_provider=provider), at("shm:")(Asking().handler()) as channel:
        channel.unary_unary(f"/{SERVICE}/Fail")(b"")
    assert pids == [os.getpid()]

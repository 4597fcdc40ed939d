"""`opentelemetry-instrument`, `LocalrpcInstrumentor().instrument()`, and OpenTelemetry's own
interceptors: spans as with grpcio, and metrics of what localrpc counts."""

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
from localrpc.observe import Endpoint
from localrpc.testing import serving
from tests.observe.readings import expect
from tests.observe.test_numbers import counts
from tests.rpc.house import PATIENCE, House

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


# Metrics.

Points = dict[tuple[str, frozenset[tuple[str, Any]]], float]


class Meters:
    """A provider, and what a reader of it collects about one target: by name and attributes."""

    def __init__(self, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader

        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader])
        stats = localrpc.stats
        monkeypatch.setattr(
            localrpc, "stats", lambda: tuple(each for each in stats() if each.target == target)
        )

    def collect(self) -> Points:
        found: Points = {}
        data = self.reader.get_metrics_data()
        for of_resource in data.resource_metrics if data else ():
            for of_scope in of_resource.scope_metrics:
                assert of_scope.scope.name == "localrpc"
                for metric in of_scope.metrics:
                    for point in metric.data.data_points:
                        key = metric.name, frozenset(point.attributes.items())
                        assert key not in found
                        found[key] = point.value
        return found


def point(points: Points, name: str, **attributes: Any) -> float:
    named = {key.replace("grpc_", "grpc."): value for key, value in attributes.items()}
    return points[name, frozenset(named.items())]


def test_metrics_are_what_the_process_has_counted(
    one_target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from localrpc.integrations.opentelemetry import observe_metrics

    meters = Meters(one_target, monkeypatch)
    undo = observe_metrics(meters.provider)
    assert meters.collect() == {}
    with House(one_target) as house:
        for _ in range(3):
            assert house.unary("echo")(b"x", timeout=PATIENCE) == b"x"
        assert house.unary("abort").future(b"").exception(PATIENCE)
        stream = house.stream("drip")(b"")
        next(stream)
        expect(one_target, "server", ended={"OK": 3, "NOT_FOUND": 1})
        points = meters.collect()
        for name, attributes, expected in (
            ("grpc.server.call.started", {}, 5),
            ("grpc.client.attempt.started", {}, 5),
            ("localrpc.connections", {"role": "channel"}, 1),
            ("localrpc.connections_opened", {"role": "server"}, 1),
            ("localrpc.calls_in_flight", {"role": "server"}, 1),
            ("localrpc.calls_waiting", {}, 0),
            ("localrpc.calls_refused", {}, 0),
            ("localrpc.streams", {"role": "channel"}, 1),
            ("localrpc.calls_ended", {"role": "channel", "grpc_status": "OK"}, 3),
            ("localrpc.calls_ended", {"role": "server", "grpc_status": "NOT_FOUND"}, 1),
        ):
            at = {"grpc_target": one_target, **attributes}
            assert point(points, name, **at) == expected, (name, attributes)
        for role in ("channel", "server"):
            at = {"grpc_target": one_target, "role": role}
            for name in ("sent", "received", "frames_sent", "frames_received"):
                assert point(points, f"localrpc.{name}", **at) >= 5
            times = [point(points, "localrpc.call_duration", quantile=q, **at) for q in (0.5, 0.99)]
            assert 0 < times[0] <= times[1] <= PATIENCE * 4
            assert 0 < point(points, "localrpc.time_in_calls", **at) <= 4 * times[1]
        house.gate.set()
        assert list(stream) == [b"second"]
        undo()
        undo()
        assert meters.collect() == {}


def test_metrics_of_a_provider_are_published_once(
    one_target: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from localrpc.integrations.opentelemetry import observe_metrics

    meters = Meters(one_target, monkeypatch)
    for _ in range(2):
        undo = observe_metrics(meters.provider)
        with (
            instrumented(meter_provider=meters.provider, tracer_provider=Traces().provider),
            House(one_target) as house,
        ):
            undo()
            assert house.unary("echo")(b"", timeout=PATIENCE) == b""
            points = meters.collect()
            assert point(points, "localrpc.connections", grpc_target=one_target, role="channel")
        assert meters.collect() == {}, "published after uninstrument()"
    assert caplog.records == []


def test_durations_are_those_of_the_last_minute() -> None:
    from localrpc.integrations.opentelemetry import _Recent

    recent = _Recent()

    def calls(now: float, total: int) -> int:
        (found,) = recent.of((Endpoint("server", "shm:a", True, 0.0, counts(total)),), now)
        return found.counts.begun

    # The first reading has all; later ones what came after one that is a minute old.
    assert [calls(1000, 7), calls(1030, 10), calls(1059, 11)] == [7, 3, 4]
    assert [calls(1060, 12), calls(1089, 13), calls(1090, 14)] == [5, 6, 4]
    assert [calls(1200, 20), calls(1300, 21)] == [6, 1]
    # As in a forked child, or where an endpoint has given up its place.
    assert calls(1310, 2) == 2
    assert recent.of((), 1320) == []

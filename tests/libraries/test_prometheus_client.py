"""`Collector` of localrpc.integrations.prometheus: what localrpc counts, for one process or all of
this user's."""

from __future__ import annotations

import math
from typing import Any

import pytest

import localrpc
from localrpc.observe import Endpoint, Page
from tests.observe.readings import expect
from tests.observe.test_numbers import counts, latency
from tests.peers import processes
from tests.rpc.house import PATIENCE, House, dial

LIBRARIES = ("prometheus-client",)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def collected(*arguments: Any, **named: Any) -> Samples:
    """By name and labels."""
    from prometheus_client import CollectorRegistry

    from localrpc.integrations.prometheus import Collector

    registry = CollectorRegistry()
    registry.register(Collector(*arguments, **named))
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for metric in registry.collect()
        for sample in metric.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def test_calls_are_collected_by_target_role_and_status(one_target: str) -> None:
    with House(one_target, options=[("localrpc.max_calls_per_user", 2)]) as house:
        for _ in range(3):
            assert house.unary("echo")(b"x", timeout=PATIENCE) == b"x"
        assert house.unary("abort").future(b"").exception(PATIENCE)
        expect(one_target, "server", in_flight=0)
        stream = house.stream("drip")(b"")
        next(stream)
        held = house.unary("wait").future(b"")
        house.enter()
        assert house.unary("echo").future(b"").exception(PATIENCE)  # one too many
        expect(one_target, "channel", in_flight=2)
        samples = collected()
        target = {"grpc_target": one_target}
        channel, server = target | {"role": "channel"}, target | {"role": "server"}
        for name, labels, expected in (
            ("grpc_server_call_started_total", target, 6),
            ("grpc_client_attempt_started_total", target, 7),
            ("localrpc_connections", channel, 1),
            ("localrpc_connections_opened_total", server, 1),
            ("localrpc_calls_in_flight", channel, 2),
            ("localrpc_calls_in_flight", server, 2),
            ("localrpc_calls_waiting", target, 0),
            ("localrpc_streams", server, 1),
            ("localrpc_calls_refused_total", target, 1),
            ("localrpc_calls_ended_total", server | {"grpc_status": "OK"}, 3),
            ("localrpc_calls_ended_total", server | {"grpc_status": "NOT_FOUND"}, 1),
            ("localrpc_calls_ended_total", channel | {"grpc_status": "RESOURCE_EXHAUSTED"}, 1),
            ("grpc_server_call_duration_seconds_count", target, 4),
            ("grpc_client_attempt_duration_seconds_count", target, 5),
            ("grpc_client_attempt_duration_seconds_bucket", target | {"le": "0.0"}, 0),
            ("grpc_client_attempt_duration_seconds_bucket", target | {"le": "+Inf"}, 5),
            ("localrpc_endpoints_left_out_total", {}, 0),
        ):
            assert value(samples, name, **labels) == expected, (name, labels)
        for name in ("bytes", "frames"):
            there = (
                f"localrpc_sent_{name}_total" if name == "bytes" else "localrpc_frames_sent_total"
            )
            assert value(samples, there, **channel) > 6
        assert 0 < value(samples, "grpc_server_call_duration_seconds_sum", **target) < PATIENCE
        assert not any("pid" in dict(labels) for _, labels in samples)
        house.gate.set()
        held.result(PATIENCE)
        assert list(stream) == [b"second"]


def test_counters_grow_while_connections_come_and_go(one_target: str) -> None:
    before: Samples = {}
    with dial(one_target) as channel:
        for _ in range(2):
            with House(one_target):
                channel.unary_unary("/house/echo")(b"", timeout=PATIENCE)
            now = {
                (name, labels): number
                for (name, labels), number in collected().items()
                if ("grpc_target", one_target) in labels
                and name.endswith(("_total", "_count", "_sum", "_bucket"))
            }
            assert before.keys() <= now.keys()
            assert all(now[key] >= before[key] for key in before)
            before = now
    opened = value(now, "localrpc_connections_opened_total", grpc_target=one_target, role="channel")
    assert opened == 2


def test_one_process_shows_all_of_its_user(
    one_target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from localrpc.integrations import prometheus

    with processes.server(one_target) as server, processes.idle_client(one_target) as client:
        # Of this machine's other tests there may be thousands of endpoints.
        pids = server.pid, client.pid
        of_both = [each for each in localrpc.observe.processes() if each.pid in pids]
        assert len(of_both) == 2
        monkeypatch.setattr(prometheus, "processes", lambda: of_both)
        samples = collected("user")
        target = {"grpc_target": one_target}
        server_s, client_s = (target | {"pid": str(pid)} for pid in pids)
        begun = value(samples, "grpc_client_attempt_started_total", **client_s)
        assert value(samples, "grpc_server_call_started_total", **server_s) == begun == 2
        assert value(samples, "localrpc_connections", role="server", **server_s) == 2
        assert value(samples, "localrpc_connections", role="channel", **client_s) == 2
        for pid in pids:
            assert value(samples, "localrpc_endpoints_left_out_total", pid=str(pid)) == 0


def buckets(monkeypatch: pytest.MonkeyPatch, bounds: Any = None, **calls: int) -> dict[str, float]:
    """The histogram of a channel that has ended these calls, and nothing else."""
    from localrpc.integrations import prometheus

    numbers = counts(latency=latency(**calls))
    page = Page(1, "", 0, (Endpoint("channel", "shm:a", True, 0.0, numbers),))
    monkeypatch.setattr(prometheus, "own", lambda: page)
    samples = collected(**({} if bounds is None else {"buckets": bounds}))
    return {
        dict(labels)["le"]: number
        for (name, labels), number in samples.items()
        if name == "grpc_client_attempt_duration_seconds_bucket"
    }


def test_bounds_are_those_of_the_grfc(monkeypatch: pytest.MonkeyPatch) -> None:
    found = buckets(monkeypatch)
    assert len(found) == 42
    bounds = [float(bound) for bound in found]
    assert bounds == sorted(bounds)
    assert bounds[1:4] == [0.00001, 0.00005, 0.0001]
    assert bounds[-2:] == [100.0, math.inf]


def test_no_bound_has_calls_that_may_have_lasted_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bucket 41 ends at 9.216 us, and 42 at 10.24 us."""
    found = buckets(monkeypatch, at0=1, at41=10, at42=100, at239=1000)
    assert [found[bound] for bound in ("0.0", "1e-05", "5e-05")] == [0, 11, 111]
    assert (found["100.0"], found["+Inf"]) == (111, 1111)


def test_what_is_exported_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    from prometheus_client import CollectorRegistry
    from prometheus_client.openmetrics.exposition import generate_latest
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    from localrpc.integrations import prometheus

    endpoints = tuple(
        Endpoint(role, target, True, 0.0, counts(3))
        for role in ("channel", "server")
        for target in ("shm:a", 'unix:/"quoted"\\\n')
    )
    monkeypatch.setattr(prometheus, "own", lambda: Page(1, "", 0, endpoints))
    registry = CollectorRegistry()
    registry.register(prometheus.Collector())
    text = generate_latest(registry).decode()
    exported = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for metric in text_string_to_metric_families(text)
        for sample in metric.samples
    }
    assert exported == collected()


def test_bounds_of_the_core_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = latency(at42=10, at43=100)
    bounds = [end for end, _ in calls.buckets()]
    found = buckets(monkeypatch, bounds, at42=10, at43=100)
    assert list(found.values()) == [*(number for _, number in calls.buckets()), calls.calls]


def test_codes_that_grpc_does_not_have_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    from localrpc.integrations import prometheus

    numbers = counts(ended=(0, 0, 5, *[0] * 14, 7))
    page = Page(1, "", 3, (Endpoint("server", "shm:a", True, 0.0, numbers),))
    monkeypatch.setattr(prometheus, "own", lambda: page)
    samples = collected()
    ended = {
        dict(labels)["grpc_status"]: number
        for (name, labels), number in samples.items()
        if name == "localrpc_calls_ended_total"
    }
    assert ended == {"OK": 0, "UNKNOWN": 12}
    assert value(samples, "localrpc_endpoints_left_out_total") == 3


def test_a_registry_learns_the_names_without_numbers() -> None:
    from prometheus_client import CollectorRegistry

    from localrpc.integrations.prometheus import Collector

    registry = CollectorRegistry()
    registry.register(Collector())
    described = list(Collector().describe())
    assert [metric.samples for metric in described] == [[]] * len(described)
    assert [metric.name for metric in described] == [each.name for each in Collector().collect()]
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(Collector("user"))


def test_bad_arguments_are_refused() -> None:
    from localrpc.integrations.prometheus import Collector

    with pytest.raises(ValueError, match='"process" or "user", not \'machine\''):
        Collector("machine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"have to grow: 0\.1 comes after 0\.2"):
        Collector(buckets=[0.2, 0.1])


def test_a_process_without_endpoints_has_no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    from localrpc.integrations import prometheus

    monkeypatch.setattr(prometheus, "own", lambda: None)
    assert collected() == {}
    assert isinstance(localrpc.stats(), tuple)

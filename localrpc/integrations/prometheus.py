"""Metrics of localrpc's servers and channels for Prometheus, through prometheus_client.

    from localrpc.integrations.prometheus import Collector
    from prometheus_client import REGISTRY, start_http_server

    REGISTRY.register(Collector())
    start_http_server(9464)

Every call is counted by the core as it is made, whether there is a Collector or not; a call costs
no more with one. The names follow gRFC A66 where it has names. Labels: `grpc_target` is a
channel's target, or all of a server's with spaces between them; `role`, of metrics that both have,
is "server" or "channel"; `grpc_status` is the name of a status code. There is no `grpc_method`:
calls are counted by target. For counts by method use py-grpc-prometheus's interceptors.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Literal

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector as Base
from prometheus_client.utils import floatToGoString

from localrpc.integrations._metrics import ENDED, ENDED_TEXT, METRICS, by_status
from localrpc.observe import Endpoint, Latency, Page, own, processes, total

BUCKETS = (
    *(0.0, 0.00001, 0.00005, 0.0001, 0.0003, 0.0006, 0.0008, 0.001, 0.002, 0.003, 0.004, 0.005),
    *(0.006, 0.008, 0.01, 0.013, 0.016, 0.02, 0.025, 0.03, 0.04, 0.05, 0.065, 0.08, 0.1, 0.13),
    *(0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0),
)
"""The bounds that gRFC A66 has for durations, in seconds."""

_DURATIONS = {
    "server": ("grpc_server_call_duration", "How long ended calls have lasted, of any status."),
    "channel": (
        "grpc_client_attempt_duration",
        "How long ended attempts at calls have lasted, of any status.",
    ),
}
_LEFT_OUT = "localrpc_endpoints_left_out"

Reading = tuple[list[str], Endpoint]
"""An endpoint, and the pid as a label where there is one."""


class Collector(Base):
    """What localrpc counts, as prometheus_client's registries collect it.

    With `scope="process"` it is what this process counts; a forked child counts from 0. With
    "user" it is that of all processes of this user, and for root of all users: one endpoint then
    shows all workers of `localrpc serve` and their clients, and every metric has the label `pid`.
    The numbers of a process end with it.

    Ended calls are counted by status in localrpc_calls_ended_total. The histograms
    grpc_server_call_duration_seconds and grpc_client_attempt_duration_seconds are of the calls of
    all statuses together, because durations are not counted for each status.

    `buckets` are the histograms' bounds, in seconds. The default are those of gRFC A66; for calls
    over shared memory, which take a few microseconds, add some below 0.00001. localrpc's own
    buckets, 8 for each power of two, do not end at these bounds: a call whose bucket lies on both
    sides of a bound is counted above it. So a bound never has too many calls, and lacks at most
    those that lasted up to 1/8 less than it. A bound that Latency.buckets() has is exact.

    Counters grow while connections come and go. They begin again with the process, or if there
    have been more than 1023 connections and servers and one of the ended ones gives up its place;
    localrpc_endpoints_left_out_total counts those that found none.

    It keeps nothing between two readings, so any number of threads and registries may use it.

    Raises ValueError for another `scope`, and for `buckets` that do not grow.
    """

    def __init__(
        self, scope: Literal["process", "user"] = "process", buckets: Sequence[float] = BUCKETS
    ) -> None:
        if scope not in ("process", "user"):
            raise ValueError(f'scope is "process" or "user", not {scope!r}')
        bounds = [float(bound) for bound in buckets]
        for before, bound in pairwise(bounds):
            if not before < bound:
                raise ValueError(f"buckets have to grow: {bound} comes after {before}")
        self._labels = ["pid"] if scope == "user" else []
        self._bounds = [bound for bound in bounds if bound != float("inf")]

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without numbers, from which a registry learns the names."""
        return self._metrics([], [])

    def collect(self) -> Iterable[Metric]:
        """Return the metrics as they are now."""
        pages: list[tuple[list[str], Page | None]]
        if self._labels:
            pages = [([str(process.pid)], process.page) for process in processes()]
        else:
            pages = [([], own())]
        readings = []
        left_out = []
        for pid, page in pages:
            if page is not None:
                readings += [(pid, endpoint) for endpoint in total(page.endpoints)]
                left_out.append((pid, page.left_out))
        return self._metrics(readings, left_out)

    def _metrics(
        self, readings: list[Reading], left_out: list[tuple[list[str], int]]
    ) -> Iterator[Metric]:
        for metric in METRICS:
            name = metric.name.replace(".", "_") + ("_bytes" if metric.unit == "By" else "")
            names = ["grpc_target", *([] if metric.role else ["role"]), *self._labels]
            family = (CounterMetricFamily if metric.grows else GaugeMetricFamily)(
                name, metric.text, labels=names
            )
            for pid, each in readings:
                if metric.role in ("", each.role):
                    role = [] if metric.role else [each.role]
                    family.add_metric([each.target, *role, *pid], metric.value(each.counts))
            yield family
        names = ["grpc_target", "role", "grpc_status", *self._labels]
        ended = CounterMetricFamily(ENDED.replace(".", "_"), ENDED_TEXT, labels=names)
        for pid, each in readings:
            for status, calls in by_status(each.counts).items():
                ended.add_metric([each.target, each.role, status, *pid], calls)
        yield ended
        for of, (name, text) in _DURATIONS.items():
            names = ["grpc_target", *self._labels]
            histogram = HistogramMetricFamily(f"{name}_seconds", text, labels=names)
            for pid, each in readings:
                if each.role == of:
                    calls_to = self._buckets(each.counts.latency)
                    histogram.add_metric([each.target, *pid], calls_to, each.counts.seconds)
            yield histogram
        lost = CounterMetricFamily(
            _LEFT_OUT,
            "Connections and servers that are not counted, because there were too many.",
            labels=self._labels,
        )
        for pid, number in left_out:
            lost.add_metric(pid, number)
        yield lost

    def _buckets(self, latency: Latency) -> list[tuple[str, float]]:
        """Return the bounds as Prometheus writes them, and the calls up to each."""
        ends, calls = zip(*latency.buckets(), strict=True)
        found = []
        for bound in self._bounds:
            at = bisect_right(ends, bound)
            found.append((floatToGoString(bound), calls[at - 1] if at else 0))
        return [*found, ("+Inf", latency.calls)]

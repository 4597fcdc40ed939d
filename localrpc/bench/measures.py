"""Every kind of figure: its name, its format, and how it is computed from a slice."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter

from .sample import Sample

MIB = 1024 * 1024


@dataclass(frozen=True)
class Figure:
    """A figure's median over the rounds, with the smallest and the largest round."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Figure | None:
        rounds = list(values)
        if not rounds:
            return None
        return cls(statistics.median(rounds), min(rounds), max(rounds))


@dataclass(frozen=True)
class Measure:
    """A kind of figure: `unit` is s, /s, B/s, B, or empty for a count.

    `name` is its name in a run's JSON. `of` computes it from one slice; it is None if the figure
    is not known or, like system calls, comes from slices of its own. A latency has its
    `percent`, too. A difference smaller than `grain` means nothing. A `detail` is part of
    another figure: it is in the JSON, but not in tables.
    """

    key: str
    title: str
    unit: str
    name: str
    of: Callable[[Sample], float | None] = lambda sample: None
    percent: float | None = None
    more_is_better: bool = False
    grain: float = 0.0
    detail: bool = False

    def ratio(self, ours: Figure | None, theirs: Figure | None) -> float | None:
        """Return how many times better than `theirs` it is, by medians: above 1 is better."""
        if ours is None or theirs is None or not ours.median or not theirs.median:
            return None
        if self.more_is_better:
            return ours.median / theirs.median
        return theirs.median / ours.median


def _latency(key: str, title: str, percent: float) -> Measure:
    def of(sample: Sample) -> float | None:
        nanoseconds = sample.latencies.percentile(percent)
        return nanoseconds / 1e9 if nanoseconds is not None else None

    return Measure(key, title, "s", title, of, percent)


def _client_cpu(sample: Sample) -> float:
    return sample.client_cpu / sample.calls


def _server_cpu(sample: Sample) -> float | None:
    return sample.server_cpu / sample.calls if sample.server_known else None


MEASURES = {
    measure.key: measure
    for measure in (
        _latency("p50", "p50", 50.0),
        _latency("p90", "p90", 90.0),
        _latency("p99", "p99", 99.0),
        _latency("p999", "p99.9", 99.9),
        _latency("max", "max", 100.0),
        Measure(
            "rate", "per second", "/s", "calls_per_second", attrgetter("rate"), more_is_better=True
        ),
        Measure(
            "bytes",
            "payload per second",
            "B/s",
            "bytes_per_second",
            attrgetter("bytes_per_second"),
            more_is_better=True,
        ),
        Measure("cpu", "CPU", "s", "cpu_per_call", attrgetter("cpu_per_call")),
        Measure("client_cpu", "client's CPU", "s", "client_cpu_per_call", _client_cpu),
        Measure("server_cpu", "server's CPU", "s", "server_cpu_per_call", _server_cpu),
        Measure("memory", "memory", "B", "memory", attrgetter("memory"), grain=MIB),
        *(
            Measure(
                f"{side}_memory",
                f"{side}'s memory",
                "B",
                f"{side}_memory",
                attrgetter(f"{side}_memory"),
                grain=MIB,
                detail=True,
            )
            for side in ("client", "server")
        ),
        Measure(
            "switches",
            "context switches",
            "",
            "context_switches_per_call",
            attrgetter("switches_per_call"),
            grain=0.1,
        ),
        Measure("syscalls", "system calls", "", "syscalls_per_call", grain=0.1),
    )
}
LATENCIES = tuple(measure for measure in MEASURES.values() if measure.percent is not None)

"""What the figures say: a table for people, JSON for programs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .runner import BASELINE, Results, Round
from .sample import Latencies, Sample
from .scenarios import Scenario


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
class Row:
    """One peer in one scenario: seconds, calls per second, seconds per call."""

    peer: str
    p50: Figure | None
    p99: float | None
    rate: Figure | None
    cpu: Figure | None
    failure: str | None = None
    percentiles: dict[str, Figure | None] = field(default_factory=dict)
    """By their JSON names, each round's own."""
    others: dict[str, Figure | None] = field(default_factory=dict)
    """Further figures by their JSON names; None where they are not known."""


PERCENTILES = {"p50": 50, "p90": 90, "p99": 99, "p99.9": 99.9, "max": 100}
OTHERS: dict[str, Callable[[Sample], float | None]] = {
    "bytes_per_second": lambda s: s.bytes_per_second,
    "client_cpu_per_call": lambda s: s.client_cpu / s.calls,
    "server_cpu_per_call": lambda s: s.server_cpu / s.calls if s.server_known else None,
    "memory": lambda s: s.memory,
    "client_memory": lambda s: s.client_memory,
    "server_memory": lambda s: s.server_memory,
    "context_switches_per_call": lambda s: s.switches_per_call,
}
_MORE_IS_BETTER = {"bytes_per_second"}


def rows(results: Results, scenario: Scenario) -> list[Row]:
    rounds = results.kept(scenario.name)
    return [
        _row(results, scenario, rounds, peer)
        for peer in results.plan.peers
        if (peer, scenario.name) not in results.unsupported
    ]


def _row(results: Results, scenario: Scenario, rounds: list[Round], peer: str) -> Row:
    failures = results.failures
    failure = failures.get((peer, None)) or failures.get((peer, scenario.name))
    samples = [r.samples[peer] for r in rounds if peer in r.samples]
    p50s = [p for s in samples if (p := s.latencies.percentile(50)) is not None]
    p99 = _pooled(samples).percentile(99)
    return Row(
        peer,
        p50=Figure.of(p / 1e9 for p in p50s),
        p99=p99 / 1e9 if p99 is not None else None,
        rate=Figure.of(s.rate for s in samples),
        cpu=Figure.of(s.cpu_per_call for s in samples),
        failure=failure,
        percentiles={
            name: Figure.of(
                p / 1e9 for s in samples if (p := s.latencies.percentile(percent)) is not None
            )
            for name, percent in PERCENTILES.items()
        },
        others={
            name: Figure.of(value for s in samples if (value := figure(s)) is not None)
            for name, figure in OTHERS.items()
        }
        | {"syscalls_per_call": Figure.of(_one(results.syscalls.get((peer, scenario.name))))},
    )


def _one(value: float | None) -> list[float]:
    return [] if value is None else [value]


def _pooled(samples: Iterable[Sample]) -> Latencies:
    # A round has too few calls for a tail of its own where they are slow.
    pooled = Latencies()
    for sample in samples:
        pooled.update(sample.latencies)
    return pooled


def ratios(row: Row, base: Row | None) -> dict[str, float | None]:
    """How many times better than the baseline, medians by medians: above 1 is better."""

    def ratio(figure: Callable[[Row], Figure | None], *, more_is_better: bool) -> float | None:
        ours, theirs = figure(row), figure(base) if base is not None else None
        if ours is None or theirs is None or not ours.median or not theirs.median:
            return None
        better = ours.median / theirs.median
        return better if more_is_better else 1 / better

    return {
        "p50": ratio(lambda r: r.p50, more_is_better=False),
        "rate": ratio(lambda r: r.rate, more_is_better=True),
        "cpu": ratio(lambda r: r.cpu, more_is_better=False),
    }


def further_ratios(row: Row, base: Row | None) -> dict[str, float | None]:
    """As ratios(), of the other figures."""

    def ratio(name: str) -> float | None:
        if base is None:
            return None
        ours, theirs = ({**r.percentiles, **r.others}[name] for r in (row, base))
        if ours is None or theirs is None or not ours.median or not theirs.median:
            return None
        better = ours.median / theirs.median
        return better if name in _MORE_IS_BETTER else 1 / better

    return {name: ratio(name) for name in (*row.percentiles, *row.others)}


def baseline(measured: list[Row], name: str = BASELINE) -> Row | None:
    return next((row for row in measured if row.peer == name), None)


def render(results: Results, machine: dict[str, str]) -> RenderableType:
    parts: list[RenderableType] = [_table(results)]
    parts.extend(Text(line) for line in notes(results, machine))
    return Group(*parts)


def _table(results: Results) -> Table:
    table = Table(
        caption="Calls, or messages where they stream: median of the rounds (smallest-largest); "
        "p99 of all rounds together. CPU: client's and server's, for each. "
        f"x: times better than {results.plan.baseline}.",
        caption_justify="left",
        header_style="bold",
        pad_edge=False,
    )
    table.add_column("scenario")
    table.add_column("peer", no_wrap=True)
    for column in ("p50 us", "p99 us", "per second", "CPU us", "p50 x", "rate x", "CPU x"):
        table.add_column(column, justify="right", no_wrap=True)
    for scenario in results.plan.scenarios:
        measured = rows(results, scenario)
        base = baseline(measured, results.plan.baseline)
        for index, row in enumerate(measured):
            title = scenario.title if index == 0 else ""
            last = index == len(measured) - 1
            if row.rate is None:
                what = Text("failed" if row.failure else "not measured", style="red")
                table.add_row(title, row.peer, what, end_section=last)
                continue
            times = ratios(row, base if row is not base else None)
            table.add_row(
                title,
                row.peer,
                _spread(row.p50, microseconds),
                microseconds(row.p99) if row.p99 is not None else "-",
                _spread(row.rate, count),
                _spread(row.cpu, microseconds),
                *(f"{x:.1f}" if x is not None else "" for x in times.values()),
                end_section=last,
            )
    return table


def _spread(figure: Figure | None, form: Callable[[float], str]) -> str:
    if figure is None:
        return "-"
    return f"{form(figure.median)} ({form(figure.low)}-{form(figure.high)})"


def microseconds(seconds: float) -> str:
    value = seconds * 1e6
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def count(value: float) -> str:
    return f"{value:,.0f}" if value < 10_000 else f"{value / 1000:,.0f} k"


def notes(results: Results, machine: dict[str, str]) -> list[str]:
    """Under what conditions the figures were taken, one line each."""
    plan = results.plan
    every = [r for rounds in results.rounds.values() for r in rounds]
    shares = [usage.share for r in every for usage in r.usage]
    disturbed = sum(r.disturbed for r in every)
    lacking = [s.title for s in plan.scenarios if len(results.clean(s.name)) < plan.rounds]
    busy = ", one busy process beside on each core" if plan.beside_busy else ""
    lines = [
        f"Placement: {plan.placement.value}{busy}. Rounds: {plan.rounds}, interleaved; a slice: "
        f"{plan.seconds * 1000:.0f} ms; {results.seconds:.0f} s in all.",
        ", ".join(f"{key} {value}" for key, value in machine.items()),
    ]
    if shares:
        lines.append(
            f"Other processes used {statistics.median(shares):.1%} of the machine in the median "
            f"slice, {max(shares):.1%} in the worst. {disturbed} of {len(every)} rounds were "
            "disturbed, dropped and repeated where time allowed."
        )
    for (peer, scenario), why in results.failures.items():
        lines.append(f"Failed: {peer}{f', {scenario}' if scenario else ''}: {why}")
    if lacking:
        lines.append(
            f"Fewer than {plan.rounds} undisturbed rounds, filled up with the least disturbed: "
            + "; ".join(lacking)
        )
    if results.interrupted:
        lines.append("Interrupted: only what had been measured is shown.")
    return lines


def as_json(results: Results, machine: dict[str, str], command: list[str]) -> dict[str, Any]:
    """All that was measured: seconds, calls per second; every round, dropped ones marked."""
    plan = results.plan
    return {
        "command": command,
        "machine": machine,
        "placement": plan.placement.value,
        "beside_busy": plan.beside_busy,
        "rounds": plan.rounds,
        "slice_seconds": plan.seconds,
        "seconds": results.seconds,
        "interrupted": results.interrupted,
        "baseline": plan.baseline,
        "scenarios": {
            scenario.name: {
                "title": scenario.title,
                "unit": scenario.unit,
                "peers": _peers_json(rows(results, scenario), plan.baseline),
                "message_size": scenario.message_size,
                "rounds": [_round_json(r) for r in results.rounds.get(scenario.name, ())],
            }
            for scenario in plan.scenarios
        },
    }


def _peers_json(measured: list[Row], name: str) -> dict[str, Any]:
    base = baseline(measured, name)
    return {
        row.peer: {
            "p50": _figure_json(row.p50),
            "p99": row.p99,
            "calls_per_second": _figure_json(row.rate),
            "cpu_per_call": _figure_json(row.cpu),
            "percentiles": {name: _figure_json(f) for name, f in row.percentiles.items()},
            **{name: _figure_json(figure) for name, figure in row.others.items()},
            "times_better": {**further_ratios(row, base), **ratios(row, base)},
            "failure": row.failure,
        }
        for row in measured
    }


def _figure_json(figure: Figure | None) -> dict[str, float] | None:
    if figure is None:
        return None
    return {"median": figure.median, "low": figure.low, "high": figure.high}


def _round_json(round_: Round) -> dict[str, Any]:
    return {
        "disturbed": round_.disturbed,
        "others_share": round_.others,
        "samples": {
            peer: {
                "calls": sample.calls,
                "seconds": sample.seconds,
                "client_cpu": sample.client_cpu,
                "server_cpu": sample.server_cpu,
                "p50_ns": sample.latencies.percentile(50),
                "p90_ns": sample.latencies.percentile(90),
                "p99_ns": sample.latencies.percentile(99),
                "p99.9_ns": sample.latencies.percentile(99.9),
                "max_ns": sample.latencies.percentile(100),
                "memory": sample.memory,
                "context_switches": sample.switches,
            }
            for peer, sample in round_.samples.items()
        },
    }

"""The results: a table to read, and JSON for programs."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from enum import Enum
from itertools import accumulate
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

import localrpc

from .fitting import Fitting, scenario_table
from .measures import LATENCIES, MEASURES, Figure
from .plan import BASELINE
from .results import Results, Round
from .sample import Latencies, Sample
from .scenarios import Scenario

FORMAT = "localrpc-bench"
# Increased when a reader of the older version would go wrong; not for new fields.
VERSION = 1

# The points of a percentile axis: as many between 90 and 99 as between 99 and 99.9.
PERCENTILES = (
    *(0.0, 1.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 75.0, 80.0, 85.0),
    *(90.0, 92.5, 95.0, 96.5, 97.5, 98.5, 99.0, 99.25, 99.5, 99.65, 99.75, 99.85),
    *(99.9, 99.925, 99.95, 99.965, 99.975, 99.985, 99.99, 99.995, 99.999),
)


@dataclass(frozen=True)
class Row:
    """One peer in one scenario: what is known of it, by the measures' keys.

    `p99` is of all rounds together, in seconds.
    """

    peer: str
    figures: dict[str, Figure]
    p99: float | None
    failure: str | None = None


def rows(results: Results, scenario: Scenario) -> list[Row]:
    rounds = results.kept(scenario.name)
    return [
        _row(results, scenario, rounds, peer)
        for peer in results.plan.peers
        if (peer, scenario.name) not in results.unsupported
    ]


def _row(results: Results, scenario: Scenario, rounds: list[Round], peer: str) -> Row:
    failures = results.failures
    samples = [r.samples[peer] for r in rounds if peer in r.samples]
    values = {key: map(measure.of, samples) for key, measure in MEASURES.items()}
    figures = {
        **{key: Figure.of(v for v in some if v is not None) for key, some in values.items()},
        "syscalls": Figure.of(results.syscalls.get((peer, scenario.name), ())),
    }
    p99 = _pooled(samples).percentile(99)
    return Row(
        peer,
        figures={key: figure for key, figure in figures.items() if figure is not None},
        p99=p99 / 1e9 if p99 is not None else None,
        failure=failures.get((peer, None)) or failures.get((peer, scenario.name)),
    )


def _pooled(samples: Iterable[Sample]) -> Latencies:
    # If calls are slow, a round has too few of them for a tail of its own.
    pooled = Latencies()
    for sample in samples:
        pooled.update(sample.latencies)
    return pooled


def ratio(key: str, row: Row, base: Row | None) -> float | None:
    """Return how many times better than the baseline it is: above 1 is better."""
    if base is None:
        return None
    return MEASURES[key].ratio(row.figures.get(key), base.figures.get(key))


def baseline(measured: list[Row], name: str = BASELINE) -> Row | None:
    return next((row for row in measured if row.peer == name), None)


def render(results: Results, machine: dict[str, str]) -> RenderableType:
    parts: list[RenderableType] = [Fitting(lambda narrow: _tables(results, narrow))]
    parts.append(
        Text(
            "Calls, or messages for streams: median of the rounds (smallest-largest); "
            "p99 of all rounds together. CPU: client's and server's, for each. "
            f"x: times better than {results.plan.baseline}.",
            style="italic",
        )
    )
    parts.extend(Text(line) for line in notes(results, machine))
    return Group(*parts)


_COLUMNS = ("p50 us", "p99 us", "per second", "CPU us", "p50 x", "rate x", "CPU x")


def _tables(results: Results, narrow: bool) -> RenderableType:
    """Return a table of all scenarios, or a narrower one for each."""
    table = scenario_table(None, "peer", *_COLUMNS)
    tables = [] if narrow else [table]
    for scenario in results.plan.scenarios:
        if narrow:
            table = scenario_table(scenario.title, "peer", *_COLUMNS)
            tables.append(table)
        measured = rows(results, scenario)
        base = baseline(measured, results.plan.baseline)
        for index, row in enumerate(measured):
            cells = _cells(row, base if row is not base else None, "\n" if narrow else " ")
            title = [] if narrow else [scenario.title if index == 0 else ""]
            table.add_row(*title, *cells, end_section=index == len(measured) - 1)
    return Group(*tables)


def _cells(row: Row, base: Row | None, break_: str) -> list[RenderableType]:
    if "rate" not in row.figures:
        return [row.peer, Text("failed" if row.failure else "not measured", style="red")]
    times = [ratio(key, row, base) for key in ("p50", "rate", "cpu")]
    return [
        row.peer,
        _spread(row.figures.get("p50"), microseconds, break_),
        microseconds(row.p99) if row.p99 is not None else "-",
        _spread(row.figures.get("rate"), count, break_),
        _spread(row.figures.get("cpu"), microseconds, break_),
        *(f"{x:.1f}" if x is not None else "" for x in times),
    ]


def _spread(figure: Figure | None, form: Callable[[float], str], break_: str) -> str:
    if figure is None:
        return "-"
    return f"{form(figure.median)}{break_}({form(figure.low)}-{form(figure.high)})"


def microseconds(seconds: float) -> str:
    value = seconds * 1e6
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def count(value: float) -> str:
    return f"{value:,.0f}" if value < 10_000 else f"{value / 1000:,.0f} k"


def notes(results: Results, machine: dict[str, str]) -> list[str]:
    """Return the conditions under which the figures were taken, one per line."""
    plan = results.plan
    every = [r for rounds in results.rounds.values() for r in rounds]
    shares = [usage.share for r in every for usage in r.usage]
    disturbed = sum(r.disturbed for r in every)
    lacking = [s.title for s in plan.scenarios if len(results.clean(s.name)) < plan.rounds]
    busy = ", with one busy process on each core" if plan.beside_busy else ""
    ways = {offer.target.partition(":")[0]: offer for offer in localrpc.transports()}
    names = dict.fromkeys(peer.partition("?")[0] for peer in plan.peers)
    how = "; ".join(f"{name}: {ways[name].technique}" for name in names if name in ways)
    lines = [
        f"Placement: {plan.placement.value}{busy}. Rounds: {plan.rounds}, interleaved; a slice: "
        f"{plan.seconds * 1000:.0f} ms; {results.seconds:.0f} s in all.",
        ", ".join(f"{key} {value}" for key, value in machine.items()),
    ]
    if how:
        lines.append(f"Techniques: {how}.")
    if shares:
        lines.append(
            f"Other processes used {statistics.median(shares):.1%} of the machine in the median "
            f"slice, {max(shares):.1%} in the worst. {disturbed} of {len(every)} rounds were "
            "disturbed, dropped and repeated where time allowed."
        )
    for scenario in plan.scenarios:
        if all((peer, scenario.name) in results.unsupported for peer in plan.peers):
            lines.append(f"Not measured: {scenario.title}: no peer here supports it.")
    for (peer, name), why in results.failures.items():
        lines.append(f"Failed: {peer}{f', {name}' if name else ''}: {why}")
    if lacking:
        lines.append(
            f"Fewer than {plan.rounds} undisturbed rounds, supplemented by the least disturbed: "
            + "; ".join(lacking)
        )
    if results.interrupted:
        lines.append("Interrupted: only the figures measured until then are shown.")
    return lines


def as_json(results: Results, machine: dict[str, str], command: list[str]) -> dict[str, Any]:
    """Return everything that was measured: seconds, calls per second; every round, even dropped.

    `localrpc.bench.document` reads it back.
    """
    plan = results.plan
    return {
        "format": FORMAT,
        "version": VERSION,
        "ended": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "machine": machine,
        "placement": plan.placement.value,
        "beside_busy": plan.beside_busy,
        "rounds": plan.rounds,
        "slice_seconds": plan.seconds,
        "seconds": results.seconds,
        "interrupted": results.interrupted,
        "baseline": plan.baseline,
        "notes": notes(results, machine),
        "scenarios": {
            scenario.name: {
                "title": scenario.title,
                "unit": scenario.unit,
                "kind": type(scenario).__name__.lower(),
                "parameters": _parameters(scenario),
                "message_size": scenario.message_size,
                "peers": _peers_json(results, scenario),
                "rounds": _rounds_json(results, scenario.name),
                "syscalls_per_call": {
                    peer: results.syscalls[peer, scenario.name]
                    for peer in plan.peers
                    if (peer, scenario.name) in results.syscalls
                },
            }
            for scenario in plan.scenarios
        },
    }


def _parameters(scenario: Scenario) -> dict[str, Any]:
    """Return what tells scenarios of one kind apart: size, threads and the like."""
    values = {
        f.name: getattr(scenario, f.name)
        for f in fields(scenario)
        if f.name not in ("name", "title")
    }
    return {
        name: value.name.lower() if isinstance(value, Enum) else value
        for name, value in values.items()
        if isinstance(value, (int, float, str, Enum, type(None)))
    }


def _peers_json(results: Results, scenario: Scenario) -> dict[str, Any]:
    measured = rows(results, scenario)
    kept = results.kept(scenario.name)
    base = baseline(measured, results.plan.baseline)
    answer = {}
    for row in measured:
        pooled = _pooled(r.samples[row.peer] for r in kept if row.peer in r.samples)
        answer[row.peer] = {
            "p99": row.p99,
            "percentiles": _percentiles_json(pooled),
            "latency": {m.name: _figure_json(row.figures.get(m.key)) for m in LATENCIES},
            **{
                m.name: _figure_json(row.figures.get(m.key))
                for m in MEASURES.values()
                if m.percent is None or m.key == "p50"
            },
            "times_better": {m.name: ratio(m.key, row, base) for m in MEASURES.values()},
            "failure": row.failure,
        }
    return answer


def _percentiles_json(latencies: Latencies) -> list[list[float]]:
    """Return pairs of percent and seconds, if there are enough calls; the last is the maximum."""
    return [
        [percent, nanoseconds / 1e9]
        for percent, nanoseconds in zip(
            (*PERCENTILES, 100.0), percentiles(latencies, (*PERCENTILES, 100.0)), strict=True
        )
        if nanoseconds is not None
    ]


def percentiles(latencies: Latencies, percents: Iterable[float]) -> list[int | None]:
    """Return what `latencies.percentile` returns for each, sorting the latencies only once."""
    ordered = sorted(latencies)
    reached = list(accumulate(latencies[nanoseconds] for nanoseconds in ordered))
    calls = reached[-1] if reached else 0

    def at(percent: float) -> int | None:
        if not calls or (50 < percent < 100 and round(calls * (100 - percent), 6) < 100):
            return None
        return ordered[bisect_left(reached, math.ceil(round(calls * percent / 100, 6)))]

    return [at(percent) for percent in percents]


def _figure_json(figure: Figure | None) -> dict[str, float] | None:
    if figure is None:
        return None
    return {"median": figure.median, "low": figure.low, "high": figure.high}


def _rounds_json(results: Results, scenario: str) -> list[dict[str, Any]]:
    kept = {id(round_) for round_ in results.kept(scenario)}
    return [
        _round_json(round_, kept=id(round_) in kept) for round_ in results.rounds.get(scenario, ())
    ]


def _round_json(round_: Round, *, kept: bool) -> dict[str, Any]:
    return {
        "kept": kept,
        "disturbed": round_.disturbed,
        "others_share": round_.others,
        "samples": {peer: _sample_json(sample) for peer, sample in round_.samples.items()},
    }


def _sample_json(sample: Sample) -> dict[str, Any]:
    counted = {f.name: getattr(sample, f.name) for f in fields(sample) if f.name != "latencies"}
    tails = percentiles(sample.latencies, (m.percent for m in LATENCIES if m.percent is not None))
    return {**counted, **{f"{m.key}_ns": tail for m, tail in zip(LATENCIES, tails, strict=True)}}

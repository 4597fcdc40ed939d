"""Reads a benchmark's JSON back, for reports, plots, CSV and comparisons."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from .measures import MEASURES, Figure, Measure
from .plan import BASELINE
from .report import FORMAT, VERSION
from .sample import Sample

# The parameters that a plot can have as its axis, and the axis labels.
SIZE = ("size",)
CLIENTS = ("clients", "threads", "concurrency", "callers", "tasks", "processes")


class UnreadableDocument(ValueError):
    """A file cannot be read as a document; the text says which file, and why."""


@dataclass(frozen=True)
class Measured:
    """One peer in one scenario; `rounds` has the values of the rounds that count."""

    peer: str
    figures: dict[str, Figure] = field(default_factory=dict)
    rounds: dict[str, list[float]] = field(default_factory=dict)
    percentiles: list[tuple[float, float]] = field(default_factory=list)
    failure: str | None = None

    def median(self, key: str) -> float | None:
        return self.figures[key].median if key in self.figures else None

    def percentile(self, percent: float) -> float | None:
        return next((seconds for at, seconds in self.percentiles if at == percent), None)


@dataclass(frozen=True)
class Section:
    """One scenario. `kind` and `parameters` tell which other scenarios differ in one thing only."""

    name: str
    title: str
    unit: str
    kind: str
    parameters: dict[str, Any]
    peers: dict[str, Measured]

    @property
    def clients(self) -> int:
        """The number of concurrent calls."""
        values = [self.parameters.get(name) for name in CLIENTS]
        return next((value for value in values if isinstance(value, int)), 1)

    @property
    def main(self) -> str:
        """The most important figure: latency, or the rate for many threads and for streams."""
        return "rate" if self.unit == "message" or self.clients > 1 else "p50"

    def ratio(self, peer: str, base: str, key: str) -> float | None:
        """Return how many times better than `base` a peer is: above 1 is better."""
        if peer not in self.peers or base not in self.peers:
            return None
        ours, theirs = (self.peers[one].figures.get(key) for one in (peer, base))
        return MEASURES[key].ratio(ours, theirs)


@dataclass(frozen=True)
class Family:
    """Scenarios that differ in one parameter only, ordered by it."""

    title: str
    parameter: str
    members: list[tuple[int, Section]]


@dataclass(frozen=True)
class Document:
    raw: dict[str, Any]
    sections: list[Section]

    @property
    def baseline(self) -> str:
        return str(self.raw.get("baseline") or BASELINE)

    @property
    def machine(self) -> dict[str, str]:
        return {key: str(value) for key, value in (self.raw.get("machine") or {}).items()}

    @property
    def notes(self) -> list[str]:
        return [str(note) for note in self.raw.get("notes") or ()]

    @property
    def peers(self) -> list[str]:
        return list(dict.fromkeys(peer for section in self.sections for peer in section.peers))

    def section(self, name: str) -> Section | None:
        return next((section for section in self.sections if section.name == name), None)

    def families(self, parameters: tuple[str, ...]) -> list[Family]:
        """Return groups of two or more scenarios along the first of `parameters` that they have."""
        groups: dict[tuple[Any, ...], list[tuple[int, Section]]] = {}
        for section in self.sections:
            along = next((p for p in parameters if _is_number(section.parameters.get(p))), None)
            if along is None:
                continue
            rest = {k: v for k, v in section.parameters.items() if k != along}
            key = (section.kind, along, json.dumps(rest, sort_keys=True))
            groups.setdefault(key, []).append((section.parameters[along], section))
        families = []
        for (_, along, _), members in groups.items():
            members.sort(key=lambda member: member[0])
            if len({value for value, _ in members}) > 1:
                # The last, because one thread is not "threads".
                value, section = members[0 if along in SIZE else -1]
                families.append(Family(_family_title(section.title, along, value), along, members))
        return families


def load(path: Path) -> Document:
    """Read the document in a file. Raises UnreadableDocument."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableDocument(f"{path}: {error}") from error
    except ValueError as error:
        raise UnreadableDocument(f"{path} is not JSON: {error}") from error
    try:
        return parse(raw)
    except UnreadableDocument as error:
        raise UnreadableDocument(f"{path} {error}") from None


def parse(raw: Any) -> Document:
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise UnreadableDocument("is not a result of `localrpc bench --json`")
    version = raw.get("version")
    if version != VERSION:
        raise UnreadableDocument(f"has version {version}; this localrpc reads {VERSION}")
    try:
        sections = [_section(name, one) for name, one in raw["scenarios"].items()]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnreadableDocument(f"is damaged: {error!r}") from error
    return Document(raw, sections)


def _section(name: str, raw: dict[str, Any]) -> Section:
    kept = [r["samples"] for r in raw.get("rounds") or () if r.get("kept")]
    syscalls = raw.get("syscalls_per_call") or {}
    return Section(
        name=name,
        title=raw["title"],
        unit=raw.get("unit", "call"),
        kind=raw.get("kind", name),
        parameters=raw.get("parameters") or {},
        peers={
            peer: _measured(
                peer, one, [r[peer] for r in kept if peer in r], syscalls.get(peer) or []
            )
            for peer, one in raw["peers"].items()
        },
    )


def _measured(
    peer: str, raw: dict[str, Any], samples: list[dict[str, Any]], syscalls: list[float]
) -> Measured:
    rounds = {key: list(_values(samples, measure)) for key, measure in MEASURES.items()}
    rounds["syscalls"] = syscalls
    percentiles = [(percent, seconds) for percent, seconds in raw.get("percentiles") or ()]
    at = dict(percentiles)
    figures = {
        # Half of the calls are enough for a median of every round; a tail needs all of them.
        key: _pooled(at.get(measure.percent), rounds[key])
        if measure.percent is not None and key != "p50"
        else _figure(raw.get(measure.name))
        for key, measure in MEASURES.items()
    }
    return Measured(
        peer=peer,
        figures={key: figure for key, figure in figures.items() if figure is not None},
        rounds={key: values for key, values in rounds.items() if values},
        percentiles=percentiles,
        failure=raw.get("failure"),
    )


_KNOWN = {field.name for field in fields(Sample)} - {"latencies"}


def _values(samples: list[dict[str, Any]], measure: Measure) -> Iterator[float]:
    for raw in samples:
        if measure.percent is not None:
            nanoseconds = raw.get(f"{measure.key}_ns")
            value = nanoseconds / 1e9 if nanoseconds is not None else None
        else:
            value = measure.of(Sample(**{name: raw[name] for name in _KNOWN & raw.keys()}))
        if value is not None:
            yield value


def _figure(raw: Any) -> Figure | None:
    return None if raw is None else Figure(raw["median"], raw["low"], raw["high"])


def _pooled(value: float | None, rounds: list[float]) -> Figure | None:
    """A figure of all rounds together, with the range of the single rounds."""
    if value is None:
        return None
    return Figure(value, min([value, *rounds]), max([value, *rounds]))


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _family_title(title: str, parameter: str, value: int) -> str:
    """Return "unary, raw bytes" for "unary, 64 B raw bytes", for series of different sizes."""
    number = size(value) if parameter in SIZE else str(value)
    return re.sub(rf"\b{number}( |$)", "", title).strip(", ")


def duration(seconds: float) -> str:
    """Return three digits and a suitable unit."""
    for unit, factor in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= factor:
            return f"{_three(seconds / factor)} {unit}"
    return f"{_three(seconds / 1e-9)} ns"


def amount(value: float, unit: str) -> str:
    """Return a number with its unit, /s, B/s, B or none, with decimal prefixes."""
    for prefix, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{_three(value / factor)} {prefix}{unit}"
    return f"{_three(value)} {unit}".strip()


def size(value: int) -> str:
    """Return bytes as in the names of scenarios: 64 B, 4 KiB, 1 MiB."""
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if value >= 1 << shift:
            return f"{value / (1 << shift):g} {unit}"
    return f"{value} B"


def form(key: str, value: float) -> str:
    unit = MEASURES[key].unit
    return duration(value) if unit == "s" else amount(value, unit)


def times(ratio: float) -> str:
    return f"{_three(ratio)}×"


def _three(value: float) -> str:
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"

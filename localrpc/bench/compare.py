"""Finds what changed between two runs by more than noise.

A run's kept rounds are its sample. Two runs are compared figure by figure with the exact
Mann-Whitney test: of all ways to divide the rounds of both into two groups, how many separate the
groups at least as far? A change is more than noise if these are at most 1 - confidence of all, and
if the medians differ by more than a threshold, because two runs on one machine differ slightly in
ways that the rounds within a run do not show. Memory and counts also have a grain: one switch in a
thousand calls is not twice as bad as one in two thousand.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from .document import Document, Section, form
from .fitting import Fitting, scenario_table
from .measures import MEASURES

CONFIDENCE = 0.99
THRESHOLD = 0.05
# Memory only on request: the rounds of a run share its processes, so their spread does not show
# how much the processes of another run differ.
COMPARED = ("p50", "p99", "rate", "cpu", "switches", "syscalls")


class Verdict(Enum):
    BETTER = "better"
    WORSE = "worse"
    SAME = "within noise"
    UNKNOWN = "too few rounds"


@dataclass(frozen=True)
class Change:
    """`change` is relative: 0.2 is 20 % more, better or worse; inf if it was zero before."""

    scenario: str
    peer: str
    figure: str
    before: float
    after: float
    change: float
    p: float
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """`remarks` are other differences that may explain the figures, such as versions."""

    changes: list[Change]
    titles: dict[str, str]
    remarks: list[str]
    confidence: float
    threshold: float

    def count(self, verdict: Verdict) -> int:
        return sum(change.verdict is verdict for change in self.changes)


def compare(
    before: Document,
    after: Document,
    *,
    confidence: float = CONFIDENCE,
    threshold: float = THRESHOLD,
    figures: tuple[str, ...] = COMPARED,
) -> Comparison:
    """Yield what both runs have: same scenario, same peer."""
    changes = []
    titles = {}
    for new in after.sections:
        old = before.section(new.name)
        if old is None:
            continue
        titles[new.name] = new.title
        for peer in new.peers:
            if peer in old.peers:
                changes += _changes(old, new, peer, confidence, threshold, figures)
    return Comparison(changes, titles, _remarks(before, after), confidence, threshold)


def _changes(
    old: Section,
    new: Section,
    peer: str,
    confidence: float,
    threshold: float,
    figures: tuple[str, ...],
) -> list[Change]:
    changes = []
    for key in figures:
        first = old.peers[peer].rounds.get(key, [])
        second = new.peers[peer].rounds.get(key, [])
        if not first or not second:
            continue
        measure = MEASURES[key]
        before, after = statistics.median(first), statistics.median(second)
        change = _relative(before, after)
        p = mann_whitney(first, second)
        if least_p(len(first), len(second)) > 1 - confidence + 1e-12:
            verdict = Verdict.UNKNOWN
        elif (
            p > 1 - confidence + 1e-12
            or abs(change) <= threshold
            or abs(after - before) < measure.grain
        ):
            verdict = Verdict.SAME
        elif (change > 0) == measure.more_is_better:
            verdict = Verdict.BETTER
        else:
            verdict = Verdict.WORSE
        changes.append(Change(new.name, peer, key, before, after, change, p, verdict))
    return changes


def _level(before: float, after: float, threshold: float, grain: float) -> bool:
    return abs(_relative(before, after)) <= threshold or abs(after - before) < grain


def _relative(before: float, after: float) -> float:
    if before:
        return after / before - 1
    return math.inf if after else 0.0


def least_p(first: int, second: int) -> float:
    """Return the smallest p for so many rounds: all of one run above all of the other."""
    return min(1.0, 2 / math.comb(first + second, first))


# Up to this number the exact test is computed; above it the normal approximation is more
# precise than any confidence that is asked for.
_EXACT = 24


def mann_whitney(first: list[float], second: list[float]) -> float:
    """Return the two-sided p for both lists coming from one distribution; ties count half."""
    n, m = len(first), len(second)
    # Twice U, so that ties stay whole numbers.
    twice_u = sum(2 * (a > b) + (a == b) for a in first for b in second)
    distance = abs(twice_u - n * m)
    ranks = _twice_ranks([*first, *second])
    if n + m <= _EXACT:
        # ways[k][s]: how many choices of k values have ranks that sum to s.
        ways: list[dict[int, int]] = [{0: 1}] + [{} for _ in range(n)]
        for rank in ranks:
            for k in range(n, 0, -1):
                for total, count in ways[k - 1].items():
                    ways[k][total + rank] = ways[k].get(total + rank, 0) + count
        middle = n * (n + m + 1)
        extreme = sum(c for total, c in ways[n].items() if abs(total - middle) >= distance)
        return extreme / math.comb(n + m, n)
    mean = (n + m + 1) / 2
    variance = sum((rank / 2 - mean) ** 2 for rank in ranks) / (n + m - 1)
    sigma = math.sqrt(n * m * variance / (n + m))
    if not sigma:
        return 1.0
    return math.erfc(max(0.0, distance / 2 - 0.5) / sigma / math.sqrt(2))


def _twice_ranks(values: list[float]) -> list[int]:
    ordered = sorted(values)
    places: dict[float, list[int]] = {}
    for place, value in enumerate(ordered, start=1):
        places.setdefault(value, []).append(place)
    return [places[value][0] + places[value][-1] for value in ordered]


def _remarks(before: Document, after: Document) -> list[str]:
    facts = {**before.machine, **after.machine}
    remarks = [
        f"{key}: {before.machine.get(key, 'not recorded')} before, "
        f"{after.machine.get(key, 'not recorded')} after"
        for key in facts
        if before.machine.get(key) != after.machine.get(key)
    ]
    for key in ("placement", "beside_busy", "slice_seconds"):
        old, new = before.raw.get(key), after.raw.get(key)
        if old != new:
            remarks.append(f"{key.replace('_', ' ')}: {old} before, {new} after")
    for document, which in ((before, "before"), (after, "after")):
        rounds = [r for s in document.raw["scenarios"].values() for r in s.get("rounds") or ()]
        disturbed = sum(bool(r.get("kept") and r.get("disturbed")) for r in rounds)
        if disturbed:
            remarks.append(
                f"{disturbed} of the {sum(bool(r.get('kept')) for r in rounds)} rounds that "
                f"count {which} were disturbed by other processes"
            )
    return remarks


def method(comparison: Comparison) -> str:
    chance = len(comparison.changes) * (1 - comparison.confidence)
    return (
        f"More than noise: an exact Mann-Whitney test of the rounds at {comparison.confidence:.3g} "
        f"confidence, and medians more than {comparison.threshold:.0%} apart. The test alone "
        f"would find about {chance:.1f} of {len(comparison.changes)} by chance."
    )


_STYLES = {
    Verdict.BETTER: "green",
    Verdict.WORSE: "bold red",
    Verdict.SAME: "dim",
    Verdict.UNKNOWN: "yellow",
}


def render(comparison: Comparison) -> RenderableType:
    parts: list[RenderableType] = [Fitting(lambda narrow: _tables(comparison, narrow))]
    parts += [Text(f"Note: {remark}", style="yellow") for remark in comparison.remarks]
    parts.append(Text(summary(comparison)))
    parts.append(Text(method(comparison)))
    return Group(*parts)


_COLUMNS = ("peer", "figure", "before", "after", "change", "p", "verdict")


def _tables(comparison: Comparison, narrow: bool) -> RenderableType:
    """Return a table of all scenarios, or a narrower one for each."""
    table = scenario_table(None, *_COLUMNS, left=2)
    tables = [] if narrow else [table]
    last = None
    for change in comparison.changes:
        title = comparison.titles[change.scenario]
        if narrow and last != change.scenario:
            table = scenario_table(title, *_COLUMNS, left=2)
            tables.append(table)
        elif last not in (None, change.scenario):
            table.add_section()
        table.add_row(
            *([] if narrow else ["" if last == change.scenario else title]),
            change.peer,
            MEASURES[change.figure].title,
            form(change.figure, change.before),
            form(change.figure, change.after),
            f"{change.change:+.1%}" if math.isfinite(change.change) else "from none",
            f"{change.p:.3f}",
            Text(change.verdict.value, style=_STYLES[change.verdict]),
        )
        last = change.scenario
    return Group(*tables)


def summary(comparison: Comparison) -> str:
    if not comparison.changes:
        return "Nothing to compare: the two runs have no scenario and peer in common."
    counts = {verdict: comparison.count(verdict) for verdict in Verdict}
    return ", ".join(f"{number} {verdict.value}" for verdict, number in counts.items()) + "."


def as_json(comparison: Comparison) -> dict[str, Any]:
    return {
        "confidence": comparison.confidence,
        "threshold": comparison.threshold,
        "method": method(comparison),
        "remarks": comparison.remarks,
        "changes": [
            {
                **asdict(change),
                # JSON has no infinity.
                "change": change.change if math.isfinite(change.change) else None,
                "verdict": change.verdict.value,
            }
            for change in comparison.changes
        ],
    }

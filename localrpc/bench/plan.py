"""What to run, and how long that takes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from .peer import Peer
from .scenarios import Scenario

BASELINE = "grpcio"
# The most rounds, as a multiple of those that were asked for: disturbed ones are repeated.
REPEATS = 2
# The part of a slice that is spent before it.
WARM_UP = 0.2
# The longest slice in which system calls are counted.
COUNTED = 0.1
# Seconds of overhead: of counting, for perf's own start; of a half of a peer, for Python's.
_PERF = 0.15
_START = 0.2
_SHORTEST = 0.02


class Placement(Enum):
    UNPINNED = "unpinned"
    ONE_CORE = "one-core"
    TWO_CORES = "two-cores"

    def cores(self) -> tuple[set[int], set[int]]:
        """Return the cores of server and client. Raises ValueError if there are too few."""
        usable = sorted(os.sched_getaffinity(0))
        if self is Placement.UNPINNED:
            return set(usable), set(usable)
        if self is Placement.ONE_CORE:
            return {usable[-1]}, {usable[-1]}
        if len(usable) < 2:
            raise ValueError("two-cores needs two usable cores, but there is only one")
        return {usable[-2]}, {usable[-1]}


@dataclass(frozen=True)
class Plan:
    """What to run. `budget` is seconds for everything, start to end, or None.

    `services` are peers that find_peer() does not know, by name.
    """

    peers: tuple[str, ...]
    scenarios: tuple[Scenario, ...]
    rounds: int
    seconds: float
    placement: Placement = Placement.UNPINNED
    beside_busy: bool = False
    budget: float | None = None
    services: Mapping[str, Peer] = field(default_factory=dict)
    server_pid: int | None = None
    """The pid of a server that was already running."""
    baseline: str = BASELINE
    syscalls: bool = False

    @property
    def slices(self) -> int:
        return self.rounds * len(self.scenarios) * len(self.peers)

    def round_cost(self, scenario: Scenario) -> float:
        """Return the seconds of a slice of each peer, with all overhead."""
        return (self.seconds + warm_up(self.seconds) + scenario.beside) * len(self.peers)

    @property
    def counting_cost(self) -> float:
        """Return the seconds of a slice in which system calls are counted."""
        return min(COUNTED, self.seconds) + _PERF if self.syscalls else 0.0

    @property
    def start_cost(self) -> float:
        return 2 * _START * len(self.peers)

    @property
    def cost(self) -> float:
        """Return the seconds for everything, if no round has to be repeated."""
        rounds = self.rounds * sum(map(self.round_cost, self.scenarios))
        return self.start_cost + rounds + self.slices * self.counting_cost

    def fitted(self, seconds: float) -> Plan:
        """Return this plan with slices short enough for it to take at most so many seconds.

        A slice never becomes too short to measure anything, whatever that costs.
        """
        besides = self.cost - self.slices * (self.seconds + warm_up(self.seconds))
        each = (seconds - besides) / self.slices / (1 + WARM_UP)
        # Whole milliseconds, as displayed.
        return replace(self, seconds=min(self.seconds, max(_SHORTEST, int(each * 1000) / 1000)))


def warm_up(seconds: float) -> float:
    return min(0.3, WARM_UP * seconds)


@dataclass(frozen=True)
class Progress:
    """The current step, the seconds since the start, and the expected seconds to the end."""

    what: str
    spent: float
    left: float

    @property
    def share(self) -> float:
        return self.spent / (self.spent + self.left) if self.left > 0 else 1.0


class Clock:
    """Estimates the time that is left.

    It uses what rounds of the same scenario have taken (for a new one: what was planned, corrected
    by how well the others met their plan), and the part of all rounds that were disturbed, because
    those are repeated.
    """

    def __init__(self, plan: Plan, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._begun = now()
        self._plan = plan
        self._planned = {one.name: plan.round_cost(one) for one in plan.scenarios}
        self._clean = dict.fromkeys(self._planned, 0)
        self._made = dict(self._clean)
        self._taken: dict[str, float] = {}
        self._current: tuple[str, float] | None = None
        self._uncounted = plan.slices if plan.syscalls else 0

    @property
    def spent(self) -> float:
        return self._now() - self._begun

    def begin(self, scenario: str) -> None:
        """Note that a round of a scenario begins."""
        self._current = scenario, self._now()

    def end(self, *, disturbed: bool, once: float = 0.0) -> None:
        """Note that the round is over; `once` are its seconds that will not be needed again."""
        assert self._current is not None
        (scenario, begun), self._current = self._current, None
        self._taken[scenario] = self._now() - begun - once
        self._made[scenario] += 1
        self._clean[scenario] += not disturbed

    def note_counted(self) -> None:
        """Note that the system calls of one more slice are counted, or will never be."""
        self._uncounted -= 1

    def allows(self, scenario: str) -> bool:
        """Return True if the budget has room for another round of it."""
        if self._plan.budget is None:
            return True
        # With a margin: no two rounds take the same time.
        return self.spent + 1.2 * self._cost(scenario) + self._counting <= self._plan.budget

    def _cost(self, scenario: str) -> float:
        """Return the seconds that the next round of it takes."""
        known = self._taken.get(scenario)
        if known is not None:
            return known
        # As if two others had taken what was planned: a single one may be an outlier.
        ratios = [taken / self._planned[name] for name, taken in self._taken.items()]
        return self._planned[scenario] * (2 + sum(ratios)) / (2 + len(ratios))

    @property
    def _counting(self) -> float:
        return self._uncounted * self._plan.counting_cost

    def _rounds(self, scenario: str) -> float:
        """Return how many more rounds of it are expected."""
        wanted = self._plan.rounds - self._clean[scenario]
        # As if a few had been clean before: one disturbed round says little.
        share = (sum(self._clean.values()) + 5) / (sum(self._made.values()) + 5)
        return min(wanted / share, REPEATS * self._plan.rounds - self._made[scenario])

    def progress(self, what: str, halves: int = 0) -> Progress:
        """Note that `halves` of peers have still to start."""
        rounds = sum(self._rounds(scenario) * self._cost(scenario) for scenario in self._clean)
        left = rounds + self._counting + halves * _START
        if self._current is not None:
            scenario, begun = self._current
            left -= min(self._now() - begun, self._cost(scenario))
        spent = self.spent
        if self._plan.budget is not None:
            left = min(left, max(0.0, self._plan.budget - spent))
        return Progress(what, spent, left)

"""What is to be run, and how long it takes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from .peer import Peer
from .scenarios import Scenario

BASELINE = "grpcio"
# Rounds in all, as a multiple of those that were asked for: disturbed ones are made again.
REPEATS = 2
# Part of a slice that is spent before it.
WARM_UP = 0.2
# What a slice takes besides, in seconds: its first call, and the reading of figures.
_BESIDE = 0.02


class Placement(Enum):
    UNPINNED = "unpinned"
    ONE_CORE = "one-core"
    TWO_CORES = "two-cores"

    def cores(self) -> tuple[set[int], set[int]]:
        """The cores of server and client; ValueError if there are too few."""
        usable = sorted(os.sched_getaffinity(0))
        if self is Placement.UNPINNED:
            return set(usable), set(usable)
        if self is Placement.ONE_CORE:
            return {usable[-1]}, {usable[-1]}
        if len(usable) < 2:
            raise ValueError("two-cores needs two usable cores, and there is one")
        return {usable[-2]}, {usable[-1]}


@dataclass(frozen=True)
class Plan:
    """What to run. `budget` is seconds for all of it, start to end, or None.

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
    """Of a server that was running before."""
    baseline: str = BASELINE
    syscalls: bool = False

    @property
    def slices(self) -> int:
        return self.rounds * len(self.scenarios) * len(self.peers)

    def shortened(self, seconds: float) -> Plan:
        """This plan with slices so short that all rounds take about so many seconds."""
        each = seconds / self.slices / (1 + WARM_UP)
        return replace(self, seconds=min(self.seconds, max(0.02, each)))


def warm_up(seconds: float) -> float:
    return min(0.3, WARM_UP * seconds)


@dataclass(frozen=True)
class Progress:
    """What is being done, and how many seconds are behind and, most likely, ahead."""

    what: str
    spent: float
    left: float

    @property
    def share(self) -> float:
        return self.spent / (self.spent + self.left) if self.left > 0 else 1.0


class Clock:
    """Reckons the time that is left.

    By what slices of the same scenario have taken, and by how many rounds of all
    were disturbed, which are made again.
    """

    def __init__(self, plan: Plan) -> None:
        self._begun = time.monotonic()
        self._plan = plan
        self._guess = (plan.seconds + warm_up(plan.seconds) + _BESIDE) * len(plan.peers)
        self._clean = {scenario.name: 0 for scenario in plan.scenarios}
        self._made = dict(self._clean)
        self._taken: dict[str, float] = {}

    @property
    def spent(self) -> float:
        return time.monotonic() - self._begun

    def note(self, scenario: str, seconds: float, *, disturbed: bool) -> None:
        """A round has taken so long."""
        self._taken[scenario] = seconds
        self._made[scenario] += 1
        self._clean[scenario] += not disturbed

    def cost(self, scenario: str) -> float:
        """Seconds that the next round of it takes."""
        return self._taken.get(scenario, self._guess)

    def _rounds(self, scenario: str) -> float:
        """How many more of it there are to be."""
        wanted = self._plan.rounds - self._clean[scenario]
        # As if a few had been clean before: one disturbed round says little.
        share = (sum(self._clean.values()) + 5) / (sum(self._made.values()) + 5)
        return min(wanted / share, REPEATS * self._plan.rounds - self._made[scenario])

    def progress(self, what: str, start: float = 0.0) -> Progress:
        """`start` is seconds that starting still takes."""
        left = sum(self._rounds(scenario) * self.cost(scenario) for scenario in self._clean)
        spent = self.spent
        if self._plan.budget is not None:
            left = min(left, max(0.0, self._plan.budget - spent))
        return Progress(what, spent, left + start)

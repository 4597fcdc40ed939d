"""What a run has measured so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from .machine import Usage
from .plan import Plan
from .sample import Limit, Sample


@dataclass(frozen=True)
class Round:
    """One slice of each peer, back to back, with what the machine did in each."""

    samples: dict[str, Sample]
    usage: tuple[Usage, ...]

    @property
    def disturbed(self) -> bool:
        return any(usage.disturbed() for usage in self.usage)

    @property
    def others(self) -> float:
        """The largest part of the machine that other processes used in a slice, 0 to 1."""
        return max((usage.share for usage in self.usage), default=0.0)


@dataclass
class Results:
    """What was measured so far. `failures` has reasons, by peer and scenario (None: all).

    `unsupported` are peers that have nothing for a scenario to measure.
    """

    plan: Plan
    rounds: dict[str, list[Round]] = field(default_factory=dict)
    failures: dict[tuple[str, str | None], str] = field(default_factory=dict)
    unsupported: set[tuple[str, str]] = field(default_factory=set)
    syscalls: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    """Per call, both processes together, by peer and scenario: one value for each round."""
    latest: str | None = None
    """The scenario of the last round."""
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def failed(self) -> bool:
        """True if there is a failure other than a limit of this machine."""
        return any(not isinstance(why, Limit) for why in self.failures.values())

    def clean(self, scenario: str) -> list[Round]:
        return [a for a in self.rounds.get(scenario, ()) if not a.disturbed]

    def kept(self, scenario: str) -> list[Round]:
        """Return the rounds that count: undisturbed ones, supplemented by the least disturbed."""
        rounds = self.rounds.get(scenario, [])
        clean = self.clean(scenario)
        if len(clean) >= self.plan.rounds:
            return clean
        dirty = sorted((a for a in rounds if a.disturbed), key=lambda a: a.others)
        return clean + dirty[: self.plan.rounds - len(clean)]

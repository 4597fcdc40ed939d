"""Which workers there should be: a state that starts no process and reads no clock.

The supervisor notes here what has happened, and does what decide() returns.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

BOOT_FAILED = 3
"""Exit code: the first workers did not start."""
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 10.0
_SETTLED = 10.0
"""Seconds after which a worker that ends is no longer one that keeps failing."""
_NEVER = float("inf")
_SPENT = -1
"""The generation of a worker that has served for long enough."""
_MARGIN = 5.0
"""Seconds that a worker has to end, after the grace of its calls."""
_DUMP = 2.0
"""Seconds that a worker that hangs has for its tracebacks."""
BEATS = 4
"""How often a worker reports that it runs, in the time after which it is taken for hung."""


class Stage(enum.Enum):
    STARTING = "starting"
    READY = "ready"
    HUNG = "hung"
    DRAINING = "draining"
    KILLED = "killed"


_PRESENT = (Stage.STARTING, Stage.READY)


@dataclass
class Member:
    """A worker process."""

    number: int
    """From 1 on, the lowest that is free: its name in the log."""
    generation: int
    """Of the code that it runs: counted by reload()."""
    since: float
    """When its stage began."""
    stage: Stage = Stage.STARTING
    failing: bool = False
    """It has said that it cannot start."""
    may_have_calls: bool = False
    """True before it is ready, too: clients may have been waiting for a worker."""
    order: int = 0
    """How many were started before it, and itself; 0: by another supervisor."""
    heard: float | None = None
    """When it last reported that it runs; None: it has not, and is not watched."""


class Start(NamedTuple):
    """Start a worker."""

    number: int


class Drain(NamedTuple):
    """Have a worker end once its calls have."""

    number: int


class Kill(NamedTuple):
    number: int
    why: str
    is_error: bool = True


class Dump(NamedTuple):
    """Have a worker write its tracebacks to stderr, and end; it gets no more clients."""

    number: int
    why: str


class Exit(NamedTuple):
    """Nothing is left to supervise."""

    code: int


class Say(NamedTuple):
    """Tell the operator."""

    text: str
    is_error: bool = False


Action: TypeAlias = Start | Drain | Dump | Kill | Exit | Say


@dataclass
class Fleet:
    """The workers of a supervisor, by number. Times are seconds on one monotonic clock."""

    wanted: int
    grace: float
    boot_timeout: float
    patient: bool = False
    """If the first workers cannot start, wait for reload() instead of giving up."""
    watchdog: float = 0.0
    """Seconds without a report after which a worker that is ready is taken for hung; 0: never."""
    members: dict[int, Member] = field(default_factory=dict)
    generation: int = 0
    served: bool = False
    """All that were wanted at the beginning have been ready."""
    _failures: int = 0
    """In a row: workers that ended soon after their start. Those that were all started before the
    first of them ended count once."""
    _starts: int = 0
    _starts_at_failure: int = -1
    """How many there had been at the last of the failures."""
    _not_before: float = 0.0
    """When the next worker may be started."""
    _looked: float | None = None
    """When decide() was last called."""
    _code: int | None = None
    """Stopping, with this exit code."""
    _said: list[Say] = field(default_factory=list)

    @property
    def stopping(self) -> bool:
        return self._code is not None

    @property
    def settled(self) -> bool:
        """True while all wanted workers are ready, and none waits to be replaced."""
        return len(self._in(Stage.READY)) == self.wanted and not self._is_rolling()

    # What has happened

    def opens(self, number: int) -> None:
        """Note that a worker, which is not ready yet, begins to take calls."""
        self.members[number].may_have_calls = True

    def ready(self, number: int, now: float) -> None:
        member = self.members[number]
        if member.stage is Stage.STARTING:
            member.stage, member.since = Stage.READY, now
            if len(self._in(Stage.READY)) >= self.wanted:
                self.served = True

    def runs(self, number: int, now: float) -> None:
        """Note that a worker's interpreter runs."""
        self.members[number].heard = now

    def cannot_start(self, number: int) -> None:
        """Note that a worker has given up, and will end."""
        self.members[number].failing = True

    def leaving(self, number: int, now: float) -> None:
        """Note that a worker has begun to end by itself."""
        member = self.members[number]
        if member.stage in _PRESENT:
            member.stage, member.since = Stage.DRAINING, now

    def ended(self, number: int, how: str, now: float) -> None:
        """Note that its process has ended; `how` is for the log, as in "was killed by SIGKILL"."""
        member = self.members.pop(number)
        if member.stage in (Stage.DRAINING, Stage.KILLED, Stage.HUNG) and not member.failing:
            return
        if self.stopping:
            return
        who = f"worker {number}"
        if member.stage is Stage.STARTING or member.failing:
            self._failed_to_start(member, f"{who} {how} before it was ready", now)
            return
        if now - member.since >= _SETTLED:
            self._failures = 0
        pause = self._pause(member, now)
        self._say(f"{who} {how}; another is started{f' in {pause:g} s' if pause else ''}", True)

    def _failed_to_start(self, member: Member, text: str, now: float) -> None:
        if not self.served and self.patient and member.generation != self.generation:
            self._say(f"{text}; what has changed meanwhile is tried", True)
        elif not self.served and self.patient:
            self._not_before = _NEVER
            self._say(f"{text}; waiting for a change", True)
        elif not self.served:
            self._say(text, True)
            self.stop(BOOT_FAILED)
        elif self._is_rolling() and member.generation == self.generation:
            self._pause(member, now)
            for other in self.members.values():
                other.generation = self.generation
            self._say(f"{text}: the replacing stops, and the other workers serve on", True)
        else:
            self._say(f"{text}; another is started in {self._pause(member, now):g} s", True)

    def _pause(self, member: Member, now: float) -> float:
        """Count a failure; return the seconds until the next start: none after the first."""
        if self._failures and member.order <= self._starts_at_failure:
            return max(0.0, self._not_before - now)
        self._starts_at_failure = self._starts
        pause = 0.0
        if self._failures:
            pause = min(_FIRST_PAUSE * 2.0 ** (self._failures - 1), _LONGEST_PAUSE)
        self._failures += 1
        self._not_before = now + pause
        return pause

    def adopt(self, number: int, stage: str, now: float) -> None:
        """Take over a worker of another supervisor."""
        self.members[number] = Member(number, self.generation, now, Stage(stage))

    def spent(self, number: int, why: str) -> None:
        """Note that a worker is to be replaced; with others, one after another."""
        member = self.members[number]
        if member.stage is Stage.READY and member.generation >= 0:
            member.generation = _SPENT
            self._say(f"worker {number} is replaced: {why}")

    # What the operator wants

    def reload(self) -> None:
        """Replace every worker by a new one."""
        if self.stopping:
            return
        self.generation += 1
        self._failures = 0
        self._not_before = 0.0

    def more(self) -> None:
        self.wanted += 1

    def fewer(self) -> None:
        self.wanted = max(1, self.wanted - 1)

    def stop(self, code: int = 0) -> None:
        """End all workers, then exit."""
        if self._code is None:
            self._code = code

    def stop_at_once(self, code: int) -> None:
        """Exit as soon as the processes have ended, which the caller kills."""
        self._code = code
        for member in self.members.values():
            member.stage = Stage.KILLED

    # What is to be done

    def decide(self, now: float) -> list[Action]:
        """Return what is to be done now, and note it as done."""
        actions: list[Action] = list(self._said)
        self._said.clear()
        self._forgive(now)
        actions += self._overdue(now)
        if self._code is not None:
            for member in self._in(Stage.READY):
                actions.append(self._drain(member, now))
            for member in self._in(Stage.STARTING):
                if member.may_have_calls:
                    actions.append(self._drain(member, now))
                else:
                    member.stage = Stage.KILLED
                    actions.append(Kill(member.number, "it was still starting", False))
            if not self.members:
                actions.append(Exit(self._code))
            return actions
        actions += self._retire(now)
        actions += self._start(now)
        return actions

    def next_time(self, now: float) -> float | None:
        """Return the seconds until decide() may have something to do; None if only an event can."""
        times = [self._deadline(member) for member in self.members.values()]
        if any(time != _NEVER for time in map(self._hangs_at, self.members.values())):
            times.append(now + self.watchdog / BEATS)  # to know whether this process runs itself
        if self._due_to_start() and not self.stopping:
            times.append(self._not_before)
        times = [time for time in times if time != _NEVER]
        return max(0.0, min(times) - now) if times else None

    def _forgive(self, now: float) -> None:
        """Begin to watch anew if this process has not run itself: it was stopped, perhaps with its
        workers, or the machine was."""
        if self.watchdog and self._looked is not None and now - self._looked > self.watchdog / 2:
            for member in self.members.values():
                if member.heard is not None:
                    member.heard = now
        self._looked = now

    def _hangs_at(self, member: Member) -> float:
        """Return when a worker is taken for hung."""
        if not self.watchdog or member.heard is None or member.stage is not Stage.READY:
            return _NEVER
        return member.heard + self.watchdog

    def _overdue(self, now: float) -> list[Action]:
        kills: list[Action] = []
        for member in self.members.values():
            if now < self._deadline(member):
                continue
            if member.stage is Stage.READY:
                member.stage, member.since = Stage.HUNG, now
                why = f"it has run no Python code for {self.watchdog:g} s"
                kills.append(Dump(member.number, why))
                continue
            if member.stage is Stage.HUNG:
                why = "it has not written its tracebacks and ended"
            elif member.stage is Stage.STARTING:
                why = f"it was not ready within {self.boot_timeout:g} s"
                member.failing = True
            else:
                why = f"it did not end within {self.grace + _MARGIN:g} s"
            member.stage = Stage.KILLED
            kills.append(Kill(member.number, why))
        return kills

    def _deadline(self, member: Member) -> float:
        if member.stage is Stage.STARTING:
            return member.since + self.boot_timeout
        if member.stage is Stage.DRAINING:
            return member.since + self.grace + _MARGIN
        if member.stage is Stage.HUNG:
            return member.since + _DUMP
        return self._hangs_at(member)

    def _retire(self, now: float) -> list[Action]:
        """Drain one worker too many; of an older generation if there is one."""
        present = self._in(Stage.READY)
        surplus = len(present) - self.wanted
        present.sort(key=lambda member: (member.generation, -member.number))
        return [self._drain(member, now) for member in present[: max(0, surplus)]]

    def _start(self, now: float) -> list[Action]:
        if now < self._not_before:
            return []
        return [self._begin(now) for _ in range(self._due_to_start())]

    def _due_to_start(self) -> int:
        # One that is killed because it does not start has yet to be counted as a failure.
        present = [m for m in self.members.values() if m.failing or m.stage in _PRESENT]
        missing = self.wanted - len(present)
        if missing <= 0:
            # One more than wanted while workers are replaced: the new one first.
            all_ready = len(self._in(Stage.READY)) == len(present)
            return int(missing == 0 and all_ready and self._is_rolling())
        if self._failures > 1:
            return int(len(self._in(Stage.READY)) == len(present))
        return missing

    def _begin(self, now: float) -> Start:
        number = next(n for n in range(1, len(self.members) + 2) if n not in self.members)
        self._starts += 1
        self.members[number] = Member(number, self.generation, now, order=self._starts)
        return Start(number)

    def _drain(self, member: Member, now: float) -> Drain:
        member.stage, member.since = Stage.DRAINING, now
        return Drain(member.number)

    def _is_rolling(self) -> bool:
        return any(member.generation != self.generation for member in self._in(*_PRESENT))

    def _in(self, *stages: Stage) -> list[Member]:
        return [member for member in self.members.values() if member.stage in stages]

    def _say(self, text: str, is_error: bool = False) -> None:
        self._said.append(Say(text, is_error))

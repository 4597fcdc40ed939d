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
    preloader: int = 0
    """Which one forked it; 0: none."""


@dataclass
class Preloader:
    """A process that forks workers."""

    number: int
    """From 1 on, never used again."""
    generation: int
    """Of the code that it has loaded. If newer code does not start, this is made the newest."""
    since: float
    """When it was started."""
    order: int
    """As that of a worker."""
    stage: Stage = Stage.STARTING
    """Then READY, KILLED."""
    failing: bool = False
    """It cannot load the application."""
    has_served: bool = False
    """A worker of it has been ready."""


class Start(NamedTuple):
    """Start a worker."""

    number: int
    preloader: int = 0
    """Which one forks it; 0: it loads the application itself."""


class Load(NamedTuple):
    """Start a preloader."""

    number: int


class Unload(NamedTuple):
    """Kill a preloader."""

    number: int
    why: str = ""
    """An error; empty: it is not needed any longer."""


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


Action: TypeAlias = Start | Load | Unload | Drain | Dump | Kill | Exit | Say


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
    preloads: bool = False
    """Workers are forked by preloaders."""
    members: dict[int, Member] = field(default_factory=dict)
    preloaders: dict[int, Preloader] = field(default_factory=dict)
    generation: int = 0
    served: bool = False
    """All that were wanted at the beginning have been ready."""
    _failures: int = 0
    """In a row: workers that ended soon after their start. Those that were all started before the
    first of them ended count once."""
    _starts: int = 0
    _loads: int = 0
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
            if member.preloader in self.preloaders:
                self.preloaders[member.preloader].has_served = True
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

    def loaded(self, number: int) -> None:
        """Note that a preloader can fork workers."""
        preloader = self.preloaders[number]
        if preloader.stage is Stage.STARTING:
            preloader.stage = Stage.READY

    def cannot_load(self, number: int) -> None:
        """Note that a preloader has given up, and will end."""
        self.preloaders[number].failing = True

    def preloader_ended(self, number: int, how: str, now: float) -> None:
        """Note that its process has ended."""
        preloader = self.preloaders.pop(number)
        if self.stopping or (preloader.stage is Stage.KILLED and not preloader.failing):
            return
        if preloader.failing or preloader.stage is Stage.STARTING:
            text = f"the preloader {how} before it had loaded the application"
            self._failed_to_start(preloader, text, now)
        else:
            if not preloader.has_served:
                self._pause(preloader, now)
            self._say(f"the preloader {how}; another is started for the next worker", True)

    def _failed_to_start(self, member: Member | Preloader, text: str, now: float) -> None:
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
            self._return_to_old_code()
            self._say(f"{text}: the replacing stops, and the other workers serve on", True)
        else:
            self._say(f"{text}; another is started in {self._pause(member, now):g} s", True)

    def _return_to_old_code(self) -> None:
        """Have the newest preloader of which a worker has been ready fork those to come."""
        newest = self._newest_that_has_served()
        if newest is not None:
            for each in self.preloaders.values():
                each.generation = self.generation if each is newest else _SPENT

    def _newest_that_has_served(self) -> Preloader | None:
        tried = [each for each in self._loaders(Stage.READY) if each.has_served]
        return max(tried, key=lambda each: each.number, default=None)

    def _pause(self, member: Member | Preloader, now: float) -> float:
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
        for preloader in self.preloaders.values():
            preloader.stage = Stage.KILLED

    def forget_preloaders(self) -> None:
        """Note that they have all been killed: another supervisor takes over."""
        self.preloaders.clear()

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
            actions += self._unload()
            if not self.members and not self.preloaders:
                actions.append(Exit(self._code))
            return actions
        actions += self._retire(now)
        actions += self._start(now)
        actions += self._unload()
        return actions

    def next_time(self, now: float) -> float | None:
        """Return the seconds until decide() may have something to do; None if only an event can."""
        times = [self._deadline(member) for member in self.members.values()]
        times += [each.since + self.boot_timeout for each in self._loaders(Stage.STARTING)]
        if any(time != _NEVER for time in map(self._hangs_at, self.members.values())):
            times.append(now + self.watchdog / BEATS)  # to know whether this process runs itself
        if self._due_to_start() and not self.stopping and not self._is_loading():
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
        for each in self._loaders(Stage.STARTING):
            if now >= each.since + self.boot_timeout:
                each.stage, each.failing = Stage.KILLED, True
                why = f"it had not loaded the application within {self.boot_timeout:g} s"
                kills.append(Unload(each.number, why))
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
        due = self._due_to_start()
        if now < self._not_before or not due or self._is_loading():
            return []
        if self.preloads and self._current() is None:
            return [self._load(now)]
        return [self._begin(now) for _ in range(due)]

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
        member = Member(number, self.generation, now, order=self._starts)
        self.members[number] = member
        if (current := self._current()) is not None:
            member.preloader = current.number
        return Start(number, member.preloader)

    # Preloaders

    def _load(self, now: float) -> Load:
        self._starts += 1
        self._loads += 1
        self.preloaders[self._loads] = Preloader(self._loads, self.generation, now, self._starts)
        return Load(self._loads)

    def _current(self) -> Preloader | None:
        """Return the one that forks those workers, or will, that are to be started."""
        present = self._loaders(*_PRESENT)
        return next((each for each in present if each.generation == self.generation), None)

    def _is_loading(self) -> bool:
        current = self._current()
        if current is not None:
            return current.stage is Stage.STARTING
        # One that is killed because it does not load has yet to be counted as a failure.
        return any(each.failing for each in self._loaders(Stage.KILLED))

    def _unload(self) -> list[Action]:
        """End those that are not needed. Until a worker with new code is ready, the preloader with
        the old code is."""
        needed = []
        if not self.stopping:
            needed.append(self._current())
            if self._is_rolling():
                needed.append(self._newest_that_has_served())
            forking = {member.preloader for member in self._in(Stage.STARTING)}
            needed += [each for each in self.preloaders.values() if each.number in forking]
        ended: list[Action] = []
        for each in self._loaders(*_PRESENT):
            if not any(each is other for other in needed):
                each.stage = Stage.KILLED
                ended.append(Unload(each.number))
        return ended

    def _loaders(self, *stages: Stage) -> list[Preloader]:
        return [each for each in self.preloaders.values() if each.stage in stages]

    # Workers

    def _drain(self, member: Member, now: float) -> Drain:
        member.stage, member.since = Stage.DRAINING, now
        return Drain(member.number)

    def _is_rolling(self) -> bool:
        return any(member.generation != self.generation for member in self._in(*_PRESENT))

    def _in(self, *stages: Stage) -> list[Member]:
        return [member for member in self.members.values() if member.stage in stages]

    def _say(self, text: str, is_error: bool = False) -> None:
        self._said.append(Say(text, is_error))

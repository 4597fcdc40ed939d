"""What is shown of each server and channel, from one reading of all processes, or two.

Nothing here reads, waits or draws.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from localrpc.observe import Counts, Endpoint, Latency, Process

STATES = {
    "R": "running",
    "S": "sleeping",
    "I": "sleeping",
    "D": "disk",
    "T": "stopped",
    "t": "traced",
    "Z": "ended",
    "X": "ended",
}
"""The kernel's letters, as words of one column."""

Key = tuple[int, int, str, str]
"""Which row it is, in any reading: pid, place in the page, role and target."""


class Reading(NamedTuple):
    """All processes at one time."""

    time: float
    """On the clock of time.monotonic()."""
    processes: tuple[Process, ...]


class Wanted(NamedTuple):
    """Which endpoints are shown."""

    target: str | None = None
    pids: tuple[int, ...] = ()
    ended: bool = False
    """Those that have ended, too."""

    @property
    def narrows(self) -> bool:
        """True if it leaves out what is live."""
        return self.target is not None or bool(self.pids)

    def takes(self, process: Process, endpoint: Endpoint) -> bool:
        if self.pids and process.pid not in self.pids:
            return False
        if not (endpoint.live or self.ended):
            return False
        return self.target is None or self.has_target(targets_of(endpoint.target))

    def has_target(self, targets: Iterable[str]) -> bool:
        """True if one of them is the target; options matter only if the target that is asked for
        has some."""
        if self.target is None:
            return True
        asked = plain(self.target)
        return any(asked in (plain(each), base_of(each)) for each in targets)


class Interval(NamedTuple):
    """What has changed between two readings."""

    seconds: float
    counts: Counts
    """What has been counted meanwhile."""
    processor: float
    """Processor seconds used meanwhile."""


class Row(NamedTuple):
    """An endpoint, and its process."""

    key: Key
    process: Process
    endpoint: Endpoint
    time: float
    """That of its reading."""
    interval: Interval | None
    """None if an earlier reading is missing."""

    @property
    def state(self) -> str:
        return STATES.get(self.process.state, self.process.state)

    @property
    def age(self) -> float:
        return max(0.0, self.time - self.endpoint.since)

    @property
    def calls_per_second(self) -> float | None:
        return self._rate(self.interval.counts.begun) if self.interval else None

    @property
    def errors_per_second(self) -> float | None:
        return self._rate(self.interval.counts.failed) if self.interval else None

    @property
    def processor_share(self) -> float | None:
        """Of one core."""
        return self._rate(self.interval.processor) if self.interval else None

    @property
    def recent(self) -> Latency:
        """Calls that have ended in the interval; all of them if there is none."""
        return self.interval.counts.latency if self.interval else self.endpoint.counts.latency

    def _rate(self, number: float) -> float | None:
        assert self.interval is not None
        return max(0.0, number) / self.interval.seconds if self.interval.seconds > 0 else None


def rows_of(now: Reading, before: Reading | None, wanted: Wanted) -> list[Row]:
    """Return a row for each wanted endpoint: by pid, servers first, then by target."""
    earlier = {process.pid: process for process in before.processes} if before else {}
    rows: list[Row] = []
    for process in now.processes:
        old = earlier.get(process.pid)
        # Another process may have the number by now: it has used less, in all likelihood.
        if old is not None and old.processor > process.processor:
            old = None
        known = dict(_keyed(old)) if old else {}
        found = []
        for key, endpoint in _keyed(process):
            if not wanted.takes(process, endpoint):
                continue
            interval = None
            if before is not None:
                interval = _interval(now, before, process, old, endpoint, known.get(key))
            found.append(Row(key, process, endpoint, now.time, interval))
        rows += sorted(found, key=lambda row: (row.endpoint.role != "server", row.endpoint.target))
    return rows


def _keyed(process: Process) -> Iterator[tuple[Key, Endpoint]]:
    for place, endpoint in enumerate(process.page.endpoints):
        yield (process.pid, place, endpoint.role, endpoint.target), endpoint


def _interval(
    now: Reading,
    before: Reading,
    process: Process,
    old: Process | None,
    endpoint: Endpoint,
    known: Endpoint | None,
) -> Interval | None:
    if known is not None:
        counts = endpoint.counts.since(known.counts)
    elif endpoint.since >= before.time:
        counts = endpoint.counts
    else:
        return None
    used = process.processor - (old.processor if old else 0.0)
    return Interval(now.time - before.time, counts, used)


# ---- targets ----

_NEXT = re.compile(r" (?=[a-z][a-z-]*:)")
_UNREACHABLE = re.compile(r"inproc:|fd:|pipe:$|(?:unix|pipe|file|shm|mq|sysvmq):(?!/)")
"""Targets of one process, those without a name, and paths relative to a folder unknown here. Names
in the runtime directory are not here either: it may be another one than the caller's."""


def targets_of(text: str) -> list[str]:
    """Return the targets of an endpoint one by one; a path may have spaces in it."""
    return _NEXT.split(text) if text else []


def plain(target: str) -> str:
    """Return it as others may have spelled it: shm:NAME for shm://NAME."""
    scheme, colon, rest = target.partition(":")
    return f"{scheme}{colon}{rest.removeprefix('//')}"


def base_of(target: str) -> str:
    """Return it plain, without its options."""
    return plain(target).partition("?")[0]


def schemes_of(endpoint: Endpoint) -> str:
    """Return the schemes of its targets, each once, with commas between them."""
    return ",".join(dict.fromkeys(each.partition(":")[0] for each in targets_of(endpoint.target)))


def live_targets(processes: Iterable[Process]) -> set[str]:
    """Return all that servers and channels name, without options."""
    return {
        base_of(target)
        for process in processes
        for endpoint in process.page.endpoints
        if endpoint.live
        for target in targets_of(endpoint.target)
    }


def callable_targets(processes: Iterable[Process]) -> set[str]:
    """Return the targets of live servers that another process can call, apart from names in the
    runtime directory, of which localrpc.transports() knows."""
    return {
        base_of(target)
        for process in processes
        for endpoint in process.page.endpoints
        if endpoint.live and endpoint.role == "server"
        for target in targets_of(endpoint.target)
        if not _UNREACHABLE.match(base_of(target))
    }

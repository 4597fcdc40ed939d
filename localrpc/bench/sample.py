"""The result of measuring one peer for one slice, and how it is timed."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from .machine import process_cpu, process_memory, process_switches


class Latencies(Counter[int]):
    """How many calls took how many nanoseconds: exact, and can be added over rounds.

    Not an HdrHistogram: a slice has few enough distinct nanoseconds to keep all their digits, and
    its package for Python (hdrhistogram 0.10) installs setuptools and pbr in every environment.
    """

    def percentile(self, percent: float) -> int | None:
        """Return the nanoseconds that `percent` of the calls did not exceed.

        None if there are too few calls to tell: the 99th percentile of 50 calls is just their
        maximum.
        """
        calls = self.total()
        # Rounded, because 100 - 99.9 is not quite 0.1.
        if 50 < percent < 100 and round(calls * (100 - percent), 6) < 100:
            return None
        left = math.ceil(round(calls * percent / 100, 6))
        for nanoseconds in sorted(self):
            left -= self[nanoseconds]
            if left <= 0:
                return nanoseconds
        return None


@dataclass(frozen=True)
class Sample:
    """One slice: `calls` counts messages if the scenario streams.

    The server's figures are None if we may not look at it. `size` is that of a message, 0 if
    there is none; memory is in bytes, at the end of the slice.
    """

    calls: int
    seconds: float
    client_cpu: float
    server_cpu: float
    latencies: Latencies = field(default_factory=Latencies)
    client_memory: int | None = None
    server_memory: int | None = None
    client_switches: int | None = None
    server_switches: int | None = None
    size: int = 0

    @property
    def rate(self) -> float:
        return self.calls / self.seconds

    @property
    def cpu_per_call(self) -> float:
        """Seconds of processor time, both processes together."""
        return (self.client_cpu + self.server_cpu) / self.calls

    @property
    def bytes_per_second(self) -> float | None:
        """The payload per second, in one direction."""
        return self.rate * self.size if self.size else None

    @property
    def server_known(self) -> bool:
        return self.server_memory is not None

    @property
    def switches(self) -> int | None:
        """Context switches, voluntary or not, of both processes together."""
        both = [n for n in (self.client_switches, self.server_switches) if n is not None]
        return sum(both) if both else None

    @property
    def switches_per_call(self) -> float | None:
        return self.switches / self.calls if self.switches is not None else None

    @property
    def memory(self) -> int | None:
        """The memory that the two processes have for themselves or share with each other."""
        both = [n for n in (self.client_memory, self.server_memory) if n is not None]
        return sum(both) if both else None


class Failure(str):
    """Why a worker has no sample to answer with."""


class Limit(Failure):
    """The machine's limits do not allow it, which a measurement is there to find out."""


@dataclass(frozen=True)
class Unsupported:
    """The peer has nothing that the scenario could measure, which is not a failure."""


@dataclass(frozen=True)
class Slice:
    """How long to warm up and to measure, in seconds, and the server that is called.

    `server` is its pid, None if that is not known.
    """

    warm_up: float
    seconds: float
    server: int | None


class Stopwatch:
    """Wall time, and what this process and the server use, from now on."""

    def __init__(self, server: int | None) -> None:
        self._server = server
        self._switches = self._read_switches()
        self._start = self._read()

    def _read(self) -> tuple[float, float, float]:
        server = process_cpu(self._server) if self._server is not None else 0.0
        return time.perf_counter(), process_cpu(os.getpid()), server

    def _read_switches(self) -> list[int | None]:
        return [process_switches(pid) for pid in (os.getpid(), self._server)]

    def sample(self, calls: int, latencies: Latencies | None = None) -> Sample:
        """End the slice and return its sample. Raises RuntimeError if no call has ended in it."""
        if not calls:
            elapsed = time.perf_counter() - self._start[0]
            raise RuntimeError(f"no call ended within {elapsed:.1f} s")
        seconds, client, server = (
            now - then for now, then in zip(self._read(), self._start, strict=True)
        )
        client_switches, server_switches = (
            # The switches of a thread that has ended meanwhile are lost.
            max(0, now - then) if now is not None and then is not None else None
            for now, then in zip(self._read_switches(), self._switches, strict=True)
        )
        return Sample(
            calls,
            seconds,
            client,
            server,
            latencies or Latencies(),
            process_memory(os.getpid()),
            process_memory(self._server),
            client_switches,
            server_switches,
        )


def repeat(call: Callable[[], object], seconds: float) -> list[int]:
    """Make calls one after the other for some nanoseconds; return what each took."""
    clock = time.perf_counter_ns
    taken: list[int] = []
    note = taken.append
    now = clock()
    end = now + int(seconds * 1e9)
    while now < end:
        call()
        then, now = now, clock()
        note(now - then)
    return taken

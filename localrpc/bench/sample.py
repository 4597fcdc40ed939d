"""What one slice of measuring one peer gives, and how it is timed."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from .machine import process_cpu


class Latencies(Counter[int]):
    """How many calls took how many nanoseconds: exact, and addable over rounds."""

    def percentile(self, percent: float) -> int | None:
        """Nanoseconds that `percent` of the calls did not exceed.

        None if there are too few calls to say: the 99th of 50 calls is their
        maximum under another name.
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
    """One slice: `calls` counts messages where the scenario streams."""

    calls: int
    seconds: float
    client_cpu: float
    server_cpu: float
    latencies: Latencies = field(default_factory=Latencies)

    @property
    def rate(self) -> float:
        return self.calls / self.seconds

    @property
    def cpu_per_call(self) -> float:
        """Seconds of processor time, both processes together."""
        return (self.client_cpu + self.server_cpu) / self.calls


class Failure(str):
    """Why a worker has no sample to answer with."""


@dataclass(frozen=True)
class Slice:
    """How long to warm up and to measure, in seconds, and whose server is called."""

    warm_up: float
    seconds: float
    server: int


class Stopwatch:
    """Wall time, and processor time of this process and of the server, from now on."""

    def __init__(self, server: int) -> None:
        self._server = server
        self._start = self._read()

    def _read(self) -> tuple[float, float, float]:
        return time.perf_counter(), process_cpu(os.getpid()), process_cpu(self._server)

    def sample(self, calls: int, latencies: Latencies | None = None) -> Sample:
        """The slice that ends now; `calls` is at least one."""
        seconds, client, server = (
            now - then for now, then in zip(self._read(), self._start, strict=True)
        )
        return Sample(calls, seconds, client, server, latencies or Latencies())


def repeat(call: Callable[[], object], seconds: float) -> list[int]:
    """Nanoseconds that each call took, one after the other for so long."""
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

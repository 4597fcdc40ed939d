"""What is measured: a scenario drives one client for one slice."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from .peers import Client, Dress
from .sample import Latencies, Sample, Slice, Stopwatch, repeat

KIB = 1024
MIB = 1024 * KIB
# Messages between two looks at the clock, where they are too fast for one each.
_STRIDE = 64


@dataclass(frozen=True)
class Scenario(ABC):
    name: str
    title: str
    unit = "call"

    @abstractmethod
    def measure(self, client: Client, slice_: Slice) -> Sample:
        """One slice, after a warm-up of its own."""


@dataclass(frozen=True)
class Unary(Scenario):
    """Calls one after the other."""

    size: int
    dress: Dress = Dress.PLAIN

    def measure(self, client: Client, slice_: Slice) -> Sample:
        return _one_by_one(client.unary(self.size, self.dress), slice_)


@dataclass(frozen=True)
class Raw(Scenario):
    """Calls one after the other, of bytes that nothing serializes."""

    size: int

    def measure(self, client: Client, slice_: Slice) -> Sample:
        return _one_by_one(client.raw(self.size), slice_)


@dataclass(frozen=True)
class Threads(Scenario):
    """Threads that share one channel, each making calls one after the other."""

    size: int
    threads: int

    def measure(self, client: Client, slice_: Slice) -> Sample:
        call = client.unary(self.size, Dress.PLAIN)
        taken: list[list[int]] = []
        failures: list[Exception] = []
        watches: list[Stopwatch] = []
        # The last thread to arrive starts the watch: this one may be late.
        begin = threading.Barrier(
            self.threads, action=lambda: watches.append(Stopwatch(slice_.server))
        )

        def work() -> None:
            try:
                repeat(call, slice_.warm_up)
                begin.wait()
                taken.append(repeat(call, slice_.seconds))
            except threading.BrokenBarrierError:
                return
            except Exception as error:
                failures.append(error)
                begin.abort()

        threads = [threading.Thread(target=work) for _ in range(self.threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return _with_latencies(watches[0].sample(sum(map(len, taken))), taken)


@dataclass(frozen=True)
class Download(Scenario):
    """One call whose answers never end."""

    size: int
    unit = "message"

    def measure(self, client: Client, slice_: Slice) -> Sample:
        with client.download(self.size) as messages:
            _drain(messages, slice_.warm_up)
            watch = Stopwatch(slice_.server)
            return watch.sample(_drain(messages, slice_.seconds))


@dataclass(frozen=True)
class Upload(Scenario):
    """One call whose requests last for the whole slice; its answer says that all arrived."""

    size: int
    unit = "message"

    def measure(self, client: Client, slice_: Slice) -> Sample:
        client.upload(self.size, _lasting(slice_.warm_up))
        watch = Stopwatch(slice_.server)
        return watch.sample(client.upload(self.size, _lasting(slice_.seconds)))


def _one_by_one(call: Callable[[], object], slice_: Slice) -> Sample:
    repeat(call, slice_.warm_up)
    watch = Stopwatch(slice_.server)
    taken = repeat(call, slice_.seconds)
    return _with_latencies(watch.sample(len(taken)), [taken])


def _with_latencies(sample: Sample, taken: list[list[int]]) -> Sample:
    # Counted after the watch has stopped: sorting is nobody's processor time.
    latencies = Latencies()
    for one in taken:
        latencies.update(one)
    return replace(sample, latencies=latencies)


def _drain(messages: Iterator[object], seconds: float) -> int:
    count = 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        before = count
        for _ in islice(messages, _STRIDE):
            count += 1
        if count == before:
            raise RuntimeError("the endless stream ended")
    return count


def _lasting(seconds: float) -> Callable[[], bool]:
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() < end


SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Unary("unary", "unary, 64 B", 64),
        Unary("unary-timeout", "unary, 64 B, timeout=", 64, Dress.TIMEOUT),
        Unary("unary-full", "unary, 64 B, timeout=, metadata, interceptors", 64, Dress.FULL),
        Unary("unary-1mib", "unary, 1 MiB protobuf", MIB),
        Raw("raw", "unary, 64 B raw bytes", 64),
        Raw("raw-1mib", "unary, 1 MiB raw bytes", MIB),
        Threads("threads", "unary, 64 B, 8 threads on one channel", 64, 8),
        Download("download", "server streaming, 64 B", 64),
        Upload("upload", "client streaming, 64 B", 64),
    )
}

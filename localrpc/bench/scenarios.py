"""What is measured: a scenario drives one client for one slice."""

from __future__ import annotations

import re
import resource
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle

from . import drivers
from .drivers import Call, Driver
from .peer import Client, Dress
from .sample import Latencies, Sample, Slice, Stopwatch

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True)
class Scenario(ABC):
    name: str
    title: str
    unit = "call"

    @property
    def message_size(self) -> int:
        """Bytes of a message, 0 if that is not meaningful."""
        return int(getattr(self, "size", 0))

    @property
    def beside(self) -> float:
        """Approximate seconds of overhead of a slice: its first call and its last."""
        return 0.02 + 0.035 * self.message_size / MIB

    @abstractmethod
    def measure(self, client: Client, slice_: Slice) -> Sample:
        """Measure one slice, after a warm-up of its own."""


@dataclass(frozen=True)
class Unary(Scenario):
    """Calls one after the other."""

    size: int
    dress: Dress = Dress.PLAIN

    def measure(self, client: Client, slice_: Slice) -> Sample:
        return _one_by_one(client.driver, client.unary(self.size, self.dress), slice_)


@dataclass(frozen=True)
class Raw(Scenario):
    """Calls one after the other, of bytes that are not serialized."""

    size: int

    def measure(self, client: Client, slice_: Slice) -> Sample:
        return _one_by_one(client.driver, client.raw(self.size), slice_)


@dataclass(frozen=True)
class Threads(Scenario):
    """Threads, or tasks of a loop, that share one channel, each calling one after the other."""

    size: int
    threads: int

    def measure(self, client: Client, slice_: Slice) -> Sample:
        call = client.unary(self.size, Dress.PLAIN)
        watches: list[Stopwatch] = []
        taken = client.driver.together(
            call,
            self.threads,
            slice_.warm_up,
            slice_.seconds,
            lambda: watches.append(Stopwatch(slice_.server)),
        )
        return _with_latencies(watches[0].sample(sum(map(len, taken))), taken)


@dataclass(frozen=True)
class Rate(Scenario):
    """Calls that are due at fixed times, even if earlier ones are not answered yet.

    A latency is counted from when its call was due (an open loop).
    """

    size: int
    rate: float

    def measure(self, client: Client, slice_: Slice) -> Sample:
        call = client.unary(self.size, Dress.PLAIN)
        client.driver.repeat(call, slice_.warm_up)
        watch = Stopwatch(slice_.server)
        taken = client.driver.at_rate(call, self.rate, slice_.seconds)
        return _with_latencies(watch.sample(len(taken)), [taken])


@dataclass(frozen=True)
class Idle(Scenario):
    """A call after a silence, in which threads fall asleep and caches grow cold."""

    size: int
    pause: float

    def measure(self, client: Client, slice_: Slice) -> Sample:
        call = client.unary(self.size, Dress.PLAIN)
        watch = Stopwatch(slice_.server)
        taken = client.driver.after_pauses(call, self.pause, slice_.seconds)
        return _with_latencies(watch.sample(len(taken)), [taken])


@dataclass(frozen=True)
class Connect(Scenario):
    """A new client of the same server: connecting, one call, closing."""

    size: int
    unit = "connection"

    def measure(self, client: Client, slice_: Slice) -> Sample:
        def connect() -> None:
            # unary() itself makes its first call, and checks it.
            with closing(client.again()) as other:
                other.unary(self.size, Dress.PLAIN)

        clock = time.perf_counter_ns
        connect()
        watch = Stopwatch(slice_.server)
        taken: list[int] = []
        end = clock() + int(slice_.seconds * 1e9)
        while not taken or clock() < end:
            then = clock()
            connect()
            taken.append(clock() - then)
        return _with_latencies(watch.sample(len(taken)), [taken])


@dataclass(frozen=True)
class Start(Scenario):
    """A whole program: Python starts, makes one call, and ends."""

    size: int
    unit = "program"

    @property
    def beside(self) -> float:
        return super().beside + 0.5  # its modules are compiled once

    def measure(self, client: Client, slice_: Slice) -> Sample:
        program = client.program(self.size)
        watch, cpu = Stopwatch(slice_.server), _children_cpu()
        taken = client.driver.repeat(program, slice_.seconds)
        cpu = _children_cpu() - cpu
        sample = watch.sample(len(taken))
        return _with_latencies(replace(sample, client_cpu=sample.client_cpu + cpu), [taken])


@dataclass(frozen=True)
class Clients(Scenario):
    """Many clients of one server that call in turn: what each idle client costs the others."""

    size: int
    clients: int

    @property
    def beside(self) -> float:
        return super().beside + 0.006 * self.clients

    def measure(self, client: Client, slice_: Slice) -> Sample:
        with ExitStack() as stack:
            calls: list[Call] = []
            for _ in range(self.clients):
                other = stack.enter_context(closing(client.again()))
                calls.append(partial(other.driver.once, other.unary(self.size, Dress.PLAIN)))
            turns = cycle(calls)
            return _one_by_one(drivers.Threads(), lambda: next(turns)(), slice_)


@dataclass(frozen=True)
class Beside(Scenario):
    """Small calls while another process exchanges large messages with the same server."""

    size: int
    large: int

    @property
    def beside(self) -> float:
        return super().beside + 1.5  # another process, and its first call

    def measure(self, client: Client, slice_: Slice) -> Sample:
        call = client.unary(self.size, Dress.PLAIN)
        with client.neighbour(self.large):
            return _one_by_one(client.driver, call, slice_)


@dataclass(frozen=True)
class Chat(Scenario):
    """One stream both ways, on which each message is answered before the next."""

    size: int
    unit = "message"

    def measure(self, client: Client, slice_: Slice) -> Sample:
        with client.chat(self.size) as call:
            return _one_by_one(client.driver, call, slice_)


@dataclass(frozen=True)
class Download(Scenario):
    """One call whose answers never end."""

    size: int
    unit = "message"

    def measure(self, client: Client, slice_: Slice) -> Sample:
        with client.download(self.size) as messages:
            client.driver.drain(messages, slice_.warm_up)
            watch = Stopwatch(slice_.server)
            return watch.sample(client.driver.drain(messages, slice_.seconds))


@dataclass(frozen=True)
class Upload(Scenario):
    """One call whose requests last for the whole slice; its answer confirms that all arrived."""

    size: int
    unit = "message"

    def measure(self, client: Client, slice_: Slice) -> Sample:
        client.upload(self.size, _lasting(slice_.warm_up))
        watch = Stopwatch(slice_.server)
        return watch.sample(client.upload(self.size, _lasting(slice_.seconds)))


def _one_by_one(driver: Driver, call: Call, slice_: Slice) -> Sample:
    driver.repeat(call, slice_.warm_up)
    watch = Stopwatch(slice_.server)
    taken = driver.repeat(call, slice_.seconds)
    return _with_latencies(watch.sample(len(taken)), [taken])


def _with_latencies(sample: Sample, taken: list[list[int]]) -> Sample:
    # After the watch has stopped: sorting must not count as a peer's processor time.
    latencies = Latencies()
    for one in taken:
        latencies.update(one)
    return replace(sample, latencies=latencies)


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _lasting(seconds: float) -> Callable[[], bool]:
    """Return a function that returns True the first time, and then for some seconds from now."""
    end = time.perf_counter() + seconds
    asked = False

    def more() -> bool:
        nonlocal asked
        first, asked = not asked, True
        return first or time.perf_counter() < end

    return more


def distinct(scenarios: Iterable[Scenario]) -> tuple[Scenario, ...]:
    """Return each scenario once, by the first of its names: "unary" is "unary-64b", too."""
    first: dict[Scenario, Scenario] = {}
    for one in scenarios:
        first.setdefault(replace(one, name="", title=""), one)
    return tuple(first.values())


def is_of_one_request(scenario: Scenario) -> bool:
    """Return True if it makes the same small unary call again and again."""
    dress = getattr(scenario, "dress", Dress.PLAIN)
    return (
        isinstance(scenario, (Unary, Threads, Rate, Idle, Connect, Clients))
        and dress is not Dress.FULL
        and scenario.message_size == SIZES[0]
    )


def size_name(size: int) -> str:
    """Return a size as in the names of scenarios: 64b, 16kib, 1mib."""
    for unit, one in (("mib", MIB), ("kib", KIB)):
        if size >= one and size % one == 0:
            return f"{size // one}{unit}"
    return f"{size}b"


def parse_size(text: str) -> int:
    """Parse a size in bytes: 64, 16k, 16KiB, 1M. Raises ValueError."""
    match = re.fullmatch(r"([0-9]{1,9})\s*(?:([kmKM])(?:i?[bB])?|[bB])?", text)
    size = int(match[1]) << {"": 0, "k": 10, "m": 20}[(match[2] or "").lower()] if match else 0
    if not SMALLEST <= size <= LARGEST:
        raise ValueError(
            f"{text!r} is not a size from {SMALLEST} to 16M; --scenario sizes has 64, 1k, 4k, 16k,"
            " 64k, 256k, 1M, 4M and 16M"
        )
    return size


def unary_of(size: int) -> Scenario:
    words = f"{size // MIB} MiB" if size >= MIB and size % MIB == 0 else ""
    words = words or (f"{size // KIB} KiB" if size >= KIB and size % KIB == 0 else f"{size} B")
    return Unary(f"unary-{size_name(size)}", f"unary, {words}", size)


def threads_of(threads: int) -> Scenario:
    plural = "threads" if threads > 1 else "thread"
    return Threads(
        f"threads-{threads}", f"unary, 64 B, {threads} {plural} on one channel", 64, threads
    )


def rate_of(rate: float) -> Scenario:
    return Rate(
        f"rate-{rate:g}", f"unary, 64 B, {rate:g} a second, from when they are due", 64, rate
    )


def clients_of(clients: int) -> Scenario:
    plural = "clients" if clients > 1 else "client"
    return Clients(f"clients-{clients}", f"unary, 64 B, {clients} {plural} in turn", 64, clients)


SMALLEST, LARGEST = 8, 16 * MIB
SIZES = (64, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB, LARGEST)
THREADS = (1, 2, 4, 8, 16, 32)
CLIENTS = (1, 4, 16, 64)
RATES = (200.0, 1000.0)


def _named(*scenarios: Scenario) -> dict[str, Scenario]:
    return {scenario.name: scenario for scenario in scenarios}


SCENARIOS = _named(
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
"""The scenarios of a run without other options."""

MORE = _named(
    Chat("chat", "bidirectional streaming, 64 B, one answer each", 64),
    Idle("idle", "unary, 64 B, after 20 ms of silence", 64, 0.02),
    Connect("connect", "connect, one call of 64 B, close", 64),
    Start("start", "a program that starts, makes one call of 64 B, ends", 64),
    Beside("beside-large", "unary, 64 B, beside another client's 64 MiB", 64, 64 * MIB),
)

SWEEPS: dict[str, tuple[Scenario, ...]] = {
    "sizes": tuple(map(unary_of, SIZES)),
    "concurrency": tuple(map(threads_of, THREADS)),
    "rates": tuple(map(rate_of, RATES)),
    "clients": tuple(map(clients_of, CLIENTS)),
}

_SWEPT = _named(*(one for sweep in SWEEPS.values() for one in sweep))
# 1 MiB is one of the nine already.
KNOWN = {**SCENARIOS, **MORE, **_SWEPT, **SCENARIOS}
# Whole programs take too long for all that is to be done in ten minutes.
SWEEPS["all"] = distinct(one for one in KNOWN.values() if not isinstance(one, Start))


def find_scenarios(name: str) -> tuple[Scenario, ...]:
    """Return one scenario, or all of a sweep. Raises ValueError."""
    if name in SWEEPS:
        return SWEEPS[name]
    if name in KNOWN:
        return (KNOWN[name],)
    raise ValueError(f"unknown scenario {name!r}; known are {', '.join([*KNOWN, *SWEEPS])}")

"""Makes the calls of one client: with blocking threads, or with tasks of an event loop.

A call is a function that makes one call and returns its answer; for a loop, it returns an
awaitable. Times are nanoseconds of time.perf_counter_ns().
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from .sample import repeat

# Messages between two looks at the clock, if they are too fast for one look each.
STRIDE = 64
# How far behind its schedule an open loop may end: a part of its length, and seconds.
_BEHIND = 2

Call = Callable[[], Any]


class CannotKeepUp(Exception):
    """Calls are due faster than they are answered."""


class Driver(ABC):
    @abstractmethod
    def once(self, call: Call) -> object:
        """Make one call and return its answer."""

    @abstractmethod
    def repeat(self, call: Call, seconds: float) -> list[int]:
        """Make calls one after the other for some nanoseconds; return what each took."""

    @abstractmethod
    def together(
        self, call: Call, count: int, warm_up: float, seconds: float, begin: Callable[[], None]
    ) -> list[list[int]]:
        """As repeat(), with `count` concurrent calls; calls `begin` after all have warmed up."""

    @abstractmethod
    def at_rate(self, call: Call, rate: float, seconds: float) -> list[int]:
        """Make `rate` calls a second; return what each took, counted from when it was due.

        So a pause of the server counts for all calls that were due in it, made or not. Raises
        CannotKeepUp.
        """

    @abstractmethod
    def after_pauses(self, call: Call, pause: float, seconds: float) -> list[int]:
        """As repeat(), with some seconds of silence before each call, which are not counted."""

    @abstractmethod
    def drain(self, messages: Any, seconds: float) -> int:
        """Return how many messages of an endless stream arrive in some nanoseconds."""

    def close(self) -> None:  # noqa: B027
        """Release what calls need; none follows."""


class Threads(Driver):
    """One thread for each concurrent call."""

    def once(self, call: Call) -> object:
        return call()

    def repeat(self, call: Call, seconds: float) -> list[int]:
        return repeat(call, seconds)

    def together(
        self, call: Call, count: int, warm_up: float, seconds: float, begin: Callable[[], None]
    ) -> list[list[int]]:
        taken: list[list[int]] = []
        failures: list[Exception] = []
        # The last thread to arrive starts the measurement: this one may be late.
        barrier = threading.Barrier(count, action=begin)

        def work() -> None:
            try:
                repeat(call, warm_up)
                barrier.wait()
                taken.append(repeat(call, seconds))
            except threading.BrokenBarrierError:
                return
            except Exception as error:
                failures.append(error)
                barrier.abort()

        threads = [threading.Thread(target=work) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return taken

    def at_rate(self, call: Call, rate: float, seconds: float) -> list[int]:
        clock = time.perf_counter_ns
        taken: list[int] = []
        with _exact_timers():
            start = clock()
            for due in _schedule(start, rate, seconds):
                if (early := due - clock()) > 0:
                    time.sleep(early / 1e9)
                call()
                now = clock()
                taken.append(now - due)
                _check_pace(now - start, seconds, rate)
        return taken

    def after_pauses(self, call: Call, pause: float, seconds: float) -> list[int]:
        clock = time.perf_counter_ns
        taken: list[int] = []
        end = clock() + int(seconds * 1e9)
        while not taken or clock() < end:
            time.sleep(pause)
            then = clock()
            call()
            taken.append(clock() - then)
        return taken

    def drain(self, messages: Iterator[object], seconds: float) -> int:
        count = 0
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            before = count
            for _ in islice(messages, STRIDE):
                count += 1
            if count == before:
                raise RuntimeError("the endless stream ended")
        return count


class Loop(Driver):
    """An event loop that runs while a method here is called."""

    def __init__(
        self, new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    ) -> None:
        self.loop = new_loop()

    def run(self, awaitable: Any) -> Any:
        async def wait() -> Any:
            return await awaitable

        return self.loop.run_until_complete(wait())

    def once(self, call: Call) -> object:
        async def one() -> object:
            return await call()

        return self.run(one())

    def repeat(self, call: Call, seconds: float) -> list[int]:
        taken: list[int] = self.run(_repeat(call, seconds))
        return taken

    def together(
        self, call: Call, count: int, warm_up: float, seconds: float, begin: Callable[[], None]
    ) -> list[list[int]]:
        async def work() -> list[list[int]]:
            await asyncio.gather(*(_repeat(call, warm_up) for _ in range(count)))
            begin()
            return await asyncio.gather(*(_repeat(call, seconds) for _ in range(count)))

        taken: list[list[int]] = self.run(work())
        return taken

    def at_rate(self, call: Call, rate: float, seconds: float) -> list[int]:
        clock = time.perf_counter_ns
        taken: list[int] = []

        async def one(due: int) -> None:
            await call()
            taken.append(clock() - due)

        async def work() -> None:
            start = clock()
            calls = []
            for due in _schedule(start, rate, seconds):
                if (early := due - clock()) > 0:
                    await asyncio.sleep(early / 1e9)
                calls.append(asyncio.ensure_future(one(due)))
            try:
                await asyncio.wait_for(asyncio.gather(*calls), _BEHIND * (seconds + 1))
            except asyncio.TimeoutError:
                _check_pace(clock() - start, 0, rate)

        with _exact_timers():
            self.run(work())
        return taken

    def after_pauses(self, call: Call, pause: float, seconds: float) -> list[int]:
        clock = time.perf_counter_ns
        taken: list[int] = []

        async def work() -> None:
            end = clock() + int(seconds * 1e9)
            while not taken or clock() < end:
                await asyncio.sleep(pause)
                then = clock()
                await call()
                taken.append(clock() - then)

        self.run(work())
        return taken

    def drain(self, messages: AsyncIterator[object], seconds: float) -> int:
        async def work() -> int:
            count = 0
            end = time.perf_counter() + seconds
            async for _ in messages:
                count += 1
                if count % STRIDE == 0 and time.perf_counter() >= end:
                    return count
            raise RuntimeError("the endless stream ended")

        count: int = self.run(work())
        return count

    def close(self) -> None:
        self.loop.close()


async def _repeat(call: Call, seconds: float) -> list[int]:
    clock = time.perf_counter_ns
    taken: list[int] = []
    now = clock()
    end = now + int(seconds * 1e9)
    while now < end:
        await call()
        then, now = now, clock()
        taken.append(now - then)
    return taken


def _schedule(start: int, rate: float, seconds: float) -> Iterator[int]:
    for number in range(max(1, int(rate * seconds))):
        yield start + int(number * 1e9 / rate)


def _check_pace(spent: int, seconds: float, rate: float) -> None:
    if spent / 1e9 > seconds + _BEHIND * (seconds + 1):
        raise CannotKeepUp(f"{rate:g} calls a second are more than it answers")


@contextlib.contextmanager
def _exact_timers() -> Iterator[None]:
    """Disable the timer slack, by which the kernel may wake this thread 50 us late; see proc(5)."""
    file = Path(f"/proc/self/task/{threading.get_native_id()}/timerslack_ns")
    if not file.exists():
        file = Path("/proc/self/timerslack_ns")  # of the main thread
    try:
        before = file.read_text()
        file.write_text("1")
    except OSError:
        yield
        return
    try:
        yield
    finally:
        file.write_text(before)

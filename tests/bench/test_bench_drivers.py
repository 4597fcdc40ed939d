"""How calls are timed: nothing that a server does is left out, and little is added."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from localrpc.bench.drivers import Call, CannotKeepUp, Driver, Loop, Threads
from localrpc.bench.peer import Dress
from localrpc.bench.sample import repeat
from tests.bench.running import running

RATE, PAUSE = 200, 0.4


@pytest.mark.parametrize("name", ["shm", "shm-aio", "grpcio", "grpcio-aio"])
def test_an_open_loop_counts_a_pause_of_the_server_for_every_due_call(
    directory: Path, name: str
) -> None:
    with running(name, directory) as (pid, client):
        call = client.unary(64, Dress.PLAIN)
        made = 0

        def pausing() -> object:
            nonlocal made
            made += 1
            if made == 40:
                os.kill(pid, signal.SIGSTOP)
                threading.Timer(PAUSE, os.kill, (pid, signal.SIGCONT)).start()
            return call()

        taken = client.driver.at_rate(pausing, RATE, 1.0)
    assert len(taken) == RATE
    # The call during the pause waited for all of it, and calls that came due in it for the rest.
    assert max(taken) > (PAUSE - 0.02) * 1e9
    for part in (0.25, 0.5, 0.75):
        late = sum(one > part * PAUSE * 1e9 for one in taken)
        assert late >= 0.9 * (1 - part) * PAUSE * RATE - 1
    # One after the other, a single call would have seen it: 1 of 200 is not even the p99.
    assert sorted(taken)[int(0.99 * len(taken))] > 0.9 * PAUSE * 1e9


def test_a_rate_that_cannot_be_kept_is_an_error() -> None:
    slow = threading.Event()
    with pytest.raises(CannotKeepUp, match="1000 calls a second"):
        Threads().at_rate(lambda: slow.wait(0.1), 1000, 0.05)


def _threads(work: Callable[[], object]) -> tuple[Driver, Call]:
    return Threads(), work


def _loop(work: Callable[[], object]) -> tuple[Driver, Call]:
    async def call() -> object:
        return work()

    return Loop(), call


@pytest.mark.parametrize("make", [_threads, _loop])
def test_every_call_is_timed_once_and_none_is_lost(
    make: Callable[[Callable[[], object]], tuple[Driver, Call]],
) -> None:
    calls: list[int] = []
    driver, call = make(lambda: calls.append(1))
    with closing(driver):
        ways: tuple[Callable[[], list[int]], ...] = (
            lambda: driver.repeat(call, 0.001),
            lambda: driver.at_rate(call, 1000, 0.01),
            lambda: driver.after_pauses(call, 0.001, 0.01),
        )
        for make_calls in ways:
            calls.clear()
            assert len(make_calls()) == len(calls) > 0
        calls.clear()
        begun: list[int] = []
        together = driver.together(call, 3, 0, 0.001, lambda: begun.append(len(calls)))
        assert len(begun) == 1
        assert sum(map(len, together)) == len(calls) - begun[0]


def test_a_failing_thread_ends_the_others() -> None:
    def fail() -> object:
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        Threads().together(fail, 3, 0.01, 0.01, lambda: None)


def test_timing_adds_less_than_a_tenth_to_the_fastest_round_trip(directory: Path) -> None:
    """The overhead is measured on a call that does nothing, so that others cannot disturb it."""

    def nothing() -> None:
        return None

    def plain() -> float:
        start = time.perf_counter_ns()
        for _ in range(1000):
            nothing()
        return (time.perf_counter_ns() - start) / 1000

    def timed() -> float:
        taken = repeat(nothing, 0.0005)
        return sum(taken) / len(taken)

    added = min(timed() for _ in range(100)) - min(plain() for _ in range(100))
    with running("socket", directory) as (_, client):
        taken = client.driver.repeat(client.raw(64), 0.2)
    assert added < min(taken) / 10


def test_a_floor_accounts_for_all_of_its_time(directory: Path) -> None:
    with running("floor-socket", directory) as (_, client):
        call = client.raw(64)
        shares = []
        for _ in range(10):
            start = time.perf_counter_ns()
            taken = client.driver.repeat(call, 0.02)
            shares.append(sum(taken) / (time.perf_counter_ns() - start))
    assert max(shares) > 0.9

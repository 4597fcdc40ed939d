"""The suites' scenes over and over, with figures: calls, restarts, stops, forks, foreign peers.

Minutes at full length (LOCALRPC_SOAK=full), seconds in an ordinary run. The
figures are printed: `pytest -s`, or tests/run --soak.
"""

from __future__ import annotations

import gc
import os
import random
import threading
from concurrent import futures
from time import monotonic
from typing import Any

import grpc
import pytest

import localrpc
from tests.concurrency.engines import live_calls, queued_bytes
from tests.concurrency.test_channels import random_call
from tests.forks.children import Child, try_all_kinds
from tests.hostile.raw import raw_client
from tests.hostile.test_clients import random_frames
from tests.peers import census, processes
from tests.peers.figures import anonymous_memory, context_switches, ring_memory
from tests.peers.journal import PATIENCE, Journal
from tests.peers.scenes import Stage, await_that
from tests.peers.station import Station
from tests.places import most_clients
from tests.skips import only_where

FULL = os.environ.get("LOCALRPC_SOAK") == "full"
SECONDS = 60 if FULL else 1
TIMES = 200 if FULL else 3
MIB = 1 << 20

pytestmark = pytest.mark.timeout(1800 if FULL else 120)


def quantiles(values: list[float]) -> str:
    ordered = sorted(values)
    count = len(ordered)
    return (
        f"p50 {ordered[count // 2] * 1e3:.2f} ms, p99 {ordered[count * 99 // 100] * 1e3:.2f} ms,"
        f" max {ordered[-1] * 1e3:.2f} ms"
    )


def test_random_calls_leave_nothing(target: str) -> None:
    station = Station(target, Journal())
    with Stage(target) as stage:
        station.fill()
        until = monotonic() + SECONDS
        calls = 0

        def work(seed: int) -> int:
            draw = random.Random(seed)
            count = 0
            while monotonic() < until:
                random_call(stage.channel, draw)
                count += 1
            return count

        with futures.ThreadPoolExecutor(8) as threads:
            for done in [threads.submit(work, seed) for seed in range(8)]:
                calls += done.result()
        await_that(lambda: live_calls(stage.channel) == 0, "no call at the client")
        await_that(lambda: live_calls(station.server) == 0, "no call at the server")
        assert queued_bytes(stage.channel) == 0
        # Unread answers to calls that have ended may stay there until the client reads.
        assert stage.channel.unary_unary("/station/echo")(b"x", timeout=PATIENCE) == b"x"
        await_that(lambda: queued_bytes(station.server) == 0, "nothing posted at the server")
    station.stop()
    print(f"\n{target}: {calls} random calls of 8 threads, nothing left")


def test_a_restarted_server_is_reached(target: str) -> None:
    latencies = []
    with localrpc.insecure_channel(target) as channel, futures.ThreadPoolExecutor(1) as pool:
        echo: Any = channel.unary_unary("/station/echo")
        with processes.server(target):
            echo(b"x")
        for _ in range(TIMES):
            waiting = pool.submit(echo, b"x", timeout=PATIENCE, wait_for_ready=True)
            with processes.server(target):
                begin = monotonic()
                assert waiting.result() == b"x"
                latencies.append(monotonic() - begin)
    print(f"\n{target}: {TIMES} restarts, reached after {quantiles(latencies)}")


def test_deadlines_fire_on_time_while_the_server_is_stopped(target: str) -> None:
    late = []
    with processes.server(target) as server, Stage(target) as stage:
        echo = stage.channel.unary_unary("/station/echo")
        echo(b"x")
        for number in range(TIMES):
            server.stop()
            begin = monotonic()
            with pytest.raises(grpc.RpcError) as caught:
                echo(b"late", timeout=0.02)
            late.append(monotonic() - begin - 0.02)
            error: Any = caught.value
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            server.go_on()
            assert echo(b"%d" % number, timeout=PATIENCE) == b"%d" % number
    print(f"\n{target}: {TIMES} deadlines of a stopped server, late by {quantiles(late)}")


def test_forks_under_load_leave_nothing(target: str) -> None:
    over = threading.Event()
    station = Station(target, Journal())
    with Stage(target) as stage, futures.ThreadPoolExecutor(4) as threads:
        station.fill()

        def work(number: int) -> int:
            count = 0
            echo = stage.channel.unary_unary("/station/echo")
            while not over.is_set():
                assert echo(b"%d" % number, timeout=PATIENCE) == b"%d" % number
                count += 1
            return count

        stage.settle()
        working = [threads.submit(work, number) for number in range(4)]
        Child(lambda: try_all_kinds(stage.channel)).join()
        gc.collect()
        before = census.take()
        for _ in range(TIMES):
            Child(lambda: try_all_kinds(stage.channel)).join()
        census.await_same(before)
        over.set()
        calls = sum(done.result() for done in working)
    station.stop()
    print(f"\n{target}: {TIMES} forks beside {calls} calls, nothing left")


def test_peers_with_other_protocols_leave_nothing(target: str) -> None:
    station = Station(target, Journal())
    with Stage(target) as stage:
        station.fill()
        try_all_kinds(stage.channel)
        stage.settle()
        gc.collect()
        before = census.take()
        draw = random.Random(7)
        for _ in range(TIMES):
            with raw_client(target) as client:
                random_frames(client, draw)
        assert stage.channel.unary_unary("/station/echo")(b"x", timeout=PATIENCE) == b"x"
        await_that(lambda: live_calls(station.server) == 0, "no call at the server")
        assert queued_bytes(station.server) == 0
        census.await_same(before)
    station.stop()
    print(f"\n{target}: {TIMES} foreign peers, nothing left")


@only_where(FULL, "an idle pair for ten seconds: ./tests/run --soak")
def test_an_idle_pair_sleeps(target: str) -> None:
    seconds = 10
    with processes.server(target) as server, processes.idle_client(target) as client:
        pids = (server.pid, client.pid)
        threading.Event().wait(0.5)
        before = sum(map(context_switches, pids))
        threading.Event().wait(seconds)
        switches = sum(map(context_switches, pids)) - before
    print(f"\n{target}: an idle pair makes {switches / seconds:.1f} context switches a second")
    assert switches <= 2 * seconds


def test_idle_clients_cost_little(target: str) -> None:
    count = most_clients(target, 100)
    with processes.server(target) as server, localrpc.insecure_channel(target) as channel:
        echo: Any = channel.unary_unary("/station/echo")
        echo(b"x", timeout=PATIENCE)
        own, rings = anonymous_memory(server.pid), ring_memory(server.pid)
        channels: list[Any] = [localrpc.insecure_channel(target) for _ in range(count)]
        for one in channels:
            one.unary_unary("/station/echo")(b"x", timeout=PATIENCE)
        own = anonymous_memory(server.pid) - own
        shared = ring_memory(server.pid) - rings
        for one in channels:
            one.close()
    print(
        f"\n{target}: {count} idle clients cost the server {own / MIB:.1f} MiB of its own and"
        f" {shared / MIB / count:.2f} MiB of shared memory each"
    )
    assert own <= 60 * MIB
    assert shared <= count * 5 * MIB // 2

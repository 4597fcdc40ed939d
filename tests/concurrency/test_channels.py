"""Many threads on one channel, many channels, and readers that are slow."""

from __future__ import annotations

import random
import threading
from concurrent import futures
from typing import Any

import grpc

import localrpc
from localrpc._core import lib
from tests.concurrency.engines import live_calls, queued_bytes
from tests.peers.journal import PATIENCE, Journal
from tests.peers.scenes import FULL, SMALL, WINDOW, Stage, await_that
from tests.peers.station import Station
from tests.places import most_clients

Code = grpc.StatusCode
THREADS = 8
OPERATIONS = 60


def random_call(channel: Any, draw: random.Random) -> None:
    """One call of any kind that ends well, or as its cancellation or deadline says."""
    size = draw.choice((0, 10, 1000, 30_000, 100_000, 1 << 20))
    message = bytes([draw.randrange(256)]) * size
    timeout = draw.choice((PATIENCE, PATIENCE, 0.0001, 0.001, 0.005))
    fate = draw.choice(("finish", "finish", "cancel", "drop"))
    kind = draw.randrange(4)
    try:
        if kind == 0:
            call = channel.unary_unary("/station/echo").future(message, timeout=timeout)
            if fate == "cancel":
                call.cancel()
            elif fate == "finish":
                assert call.result() == message
        elif kind == 1:
            call = channel.unary_stream("/station/produce")(b"%d" % size, timeout=timeout)
            for _ in range(draw.randrange(5)):
                assert len(next(call)) == size
            if fate != "drop":
                call.cancel()
        elif kind == 2:
            requests = iter([message] * draw.randrange(1, 5))
            call = channel.stream_unary("/station/consume").future(requests, timeout=timeout)
            if fate == "cancel":
                call.cancel()
            elif fate == "finish":
                assert 1 <= int(call.result()) <= 4
        else:
            requests = iter([message] * 3)
            call = channel.stream_stream("/station/mirror")(requests, timeout=timeout)
            if fate == "cancel":
                next(call)
                call.cancel()
            elif fate == "finish":
                assert list(call) == [message] * 3
    except grpc.FutureCancelledError:
        assert fate == "cancel"
    except grpc.RpcError as error:
        failed: Any = error
        assert failed.code() in (Code.DEADLINE_EXCEEDED, Code.CANCELLED), failed


def test_many_threads_cancel_and_time_out_at_random(
    target: str, station: Station, stage: Stage
) -> None:
    def work(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(OPERATIONS):
            random_call(stage.channel, draw)

    with futures.ThreadPoolExecutor(THREADS) as threads:
        for done in [threads.submit(work, seed) for seed in range(THREADS)]:
            done.result()
    assert stage.channel.unary_unary("/station/echo")(b"x", timeout=PATIENCE) == b"x"
    await_that(lambda: live_calls(stage.channel) == 0, "no call at the client")
    await_that(lambda: live_calls(station.server) == 0, "no call at the server")
    assert queued_bytes(stage.channel) == 0
    assert queued_bytes(station.server) == 0


def test_fifty_channels_at_once(target: str, station: Station) -> None:
    count = most_clients(target, 50)
    channels = [localrpc.insecure_channel(target, [("x", n)]) for n in range(count)]
    barrier = threading.Barrier(count)

    def work(number: int) -> bool:
        channel: Any = channels[number]
        echo = channel.unary_unary("/station/echo")
        barrier.wait(PATIENCE)
        good = all(echo(b"%d" % n, timeout=PATIENCE) == b"%d" % n for n in range(10))
        barrier.wait(PATIENCE)  # all are connected now
        mirror = channel.stream_stream("/station/mirror")
        return good and list(mirror(iter([b"x"] * 3), timeout=PATIENCE)) == [b"x"] * 3

    with futures.ThreadPoolExecutor(count) as threads:
        assert all(threads.map(work, range(count)))
    for channel in channels:
        channel.close()


def test_a_slow_reader_holds_one_window_and_blocks_no_other_call(
    target: str, station: Station, stage: Stage
) -> None:
    slow = stage.channel.unary_stream("/station/produce")(b"%d" % SMALL)
    next(slow)
    echo = stage.channel.unary_unary("/station/echo")
    await_that(lambda: stage.produced(stage.channel) > FULL, "a full window")
    for number in range(100):
        assert echo(b"%d" % number, timeout=PATIENCE) == b"%d" % number
    # One read takes what fits into its buffer.
    assert stage.produced(stage.channel) <= FULL + 1 + lib.LR_SCRATCH // SMALL
    assert queued_bytes(stage.channel) <= WINDOW
    assert queued_bytes(station.server) <= WINDOW
    slow.cancel()


def test_a_slow_handler_holds_one_window_and_blocks_no_other_call(
    target: str, station: Station, stage: Stage, journal: Journal
) -> None:
    call = stage.channel.stream_unary("/station/reads_nothing").future(stage.requests(bytes(SMALL)))
    await_that(lambda: stage.sent > FULL, "a full window")
    echo = stage.channel.unary_unary("/station/echo")
    for number in range(100):
        assert echo(b"%d" % number, timeout=PATIENCE) == b"%d" % number
    assert stage.sent == FULL + 1
    assert queued_bytes(station.server) <= WINDOW
    call.cancel()
    journal.hear("over", "reads_nothing")
    await_that(lambda: queued_bytes(station.server) == 0, "its messages to go")


def test_many_slow_readers_hold_a_window_each(target: str, station: Station, stage: Stage) -> None:
    slow = [stage.channel.unary_stream("/station/produce")(b"%d" % SMALL) for _ in range(4)]
    echo = stage.channel.unary_unary("/station/echo")
    for call in slow:
        next(call)
    for number in range(500):
        assert echo(b"%d" % number, timeout=PATIENCE) == b"%d" % number
    assert queued_bytes(stage.channel) <= WINDOW * len(slow)
    for call in slow:
        call.cancel()
    assert echo(b"x", timeout=PATIENCE) == b"x"
    await_that(lambda: queued_bytes(stage.channel) == 0, "what they held")

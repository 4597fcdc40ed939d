"""Handlers that wait, for each other or for long, delay no other call."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

import localrpc
from tests.peers.journal import PATIENCE, Journal
from tests.peers.station import Station


class Rendezvous:
    """Every handler waits until `parties` of them are there."""

    def __init__(self, parties: int) -> None:
        self._barrier = threading.Barrier(parties)

    def meet(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self._barrier.wait(PATIENCE)
        return request

    def stream(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for request in requests:
            self._barrier.wait(PATIENCE)
            yield request


@contextmanager
def rendezvous(target: str, parties: int) -> Iterator[Any]:
    """A channel to a server with as many workers as parties."""
    one = Rendezvous(parties)
    unary: Any = grpc.unary_unary_rpc_method_handler
    streams: Any = grpc.stream_stream_rpc_method_handler
    methods = {"meet": unary(one.meet), "stream": streams(one.stream)}
    handlers = grpc.method_handlers_generic_handler("m", methods)
    with futures.ThreadPoolExecutor(parties) as pool:
        server = localrpc.server(pool, (handlers,))
        server.add_insecure_port(target)
        server.start()
        with localrpc.insecure_channel(target) as channel:
            yield channel
        server.stop(None)


def test_sixteen_handlers_that_wait_for_each_other_finish(target: str) -> None:
    with rendezvous(target, 16) as channel, futures.ThreadPoolExecutor(16) as callers:
        meet = channel.unary_unary("/m/meet")
        for _ in range(5):
            answers = callers.map(lambda n: meet(b"%d" % n, timeout=PATIENCE), range(16))
            assert list(answers) == [b"%d" % n for n in range(16)]


def test_sixteen_futures_of_one_thread_meet(target: str) -> None:
    with rendezvous(target, 16) as channel:
        meet = channel.unary_unary("/m/meet")
        for _ in range(5):
            calls = [meet.future(b"%d" % n, timeout=PATIENCE) for n in range(16)]
            assert [call.result() for call in calls] == [b"%d" % n for n in range(16)]


def test_sixteen_streams_meet_at_every_message(target: str) -> None:
    with rendezvous(target, 16) as channel, futures.ThreadPoolExecutor(16) as callers:
        stream = channel.stream_stream("/m/stream")

        def talk(number: int) -> list[bytes]:
            return list(stream(iter([b"%d" % number] * 10), timeout=PATIENCE))

        assert list(callers.map(talk, range(16))) == [[b"%d" % n] * 10 for n in range(16)]


def test_handlers_that_wait_do_not_delay_other_calls(
    station: Station, stage: Any, journal: Journal
) -> None:
    held = [stage.channel.unary_unary("/station/hold").future(b"") for _ in range(7)]
    for _ in held:
        journal.hear("entered", "hold")
    echo = stage.channel.unary_unary("/station/echo")
    for number in range(200):
        assert echo(b"%d" % number, timeout=PATIENCE) == b"%d" % number
    for call in held:
        call.cancel()
        assert journal.hear("over", "hold") == ("over", "hold", False)


@pytest.fixture
def lonely(target: str) -> Iterator[tuple[Any, Journal]]:
    """A channel to a server with one worker."""
    journal = Journal()
    station = Station(target, journal, workers=1)
    with localrpc.insecure_channel(target) as channel:
        yield channel, journal
    station.stop()


def test_one_worker_serves_call_after_call(lonely: tuple[Any, Journal]) -> None:
    channel, _ = lonely
    echo = channel.unary_unary("/station/echo")
    mirror = channel.stream_stream("/station/mirror")
    waiting = [echo.future(b"%d" % n, timeout=PATIENCE) for n in range(50)]
    assert [call.result() for call in waiting] == [b"%d" % n for n in range(50)]
    for _ in range(10):
        assert list(mirror(iter([b"a", b"b"]), timeout=PATIENCE)) == [b"a", b"b"]
        assert echo(bytes(100_000), timeout=PATIENCE) == bytes(100_000)


def test_one_busy_worker_still_notices_a_cancelled_call(lonely: tuple[Any, Journal]) -> None:
    channel, journal = lonely
    held = channel.unary_unary("/station/hold").future(b"")
    journal.hear("entered", "hold")
    behind = channel.unary_unary("/station/echo").future(b"behind", timeout=PATIENCE)
    assert not behind.done()
    held.cancel()
    assert journal.hear("over", "hold") == ("over", "hold", False)
    assert behind.result() == b"behind"


def test_jobs_of_the_pools_owner_get_their_turn(station: Station, stage: Any) -> None:
    over = threading.Event()
    echo = stage.channel.unary_unary("/station/echo")

    def call() -> None:
        while not over.is_set():
            echo(b"x", timeout=PATIENCE)

    callers = [threading.Thread(target=call) for _ in range(2)]
    for caller in callers:
        caller.start()
    for _ in range(20):
        station.fill()
        assert station.pool.submit(pow, 2, 10).result(PATIENCE) == 1024
    over.set()
    for caller in callers:
        caller.join(PATIENCE)
        assert not caller.is_alive()


def test_a_pool_shut_down_around_a_live_server_ends_it(target: str) -> None:
    station = Station(target, Journal())
    with localrpc.insecure_channel(target) as channel:
        echo: Any = channel.unary_unary("/station/echo")
        assert echo(b"x") == b"x"
        station.pool.shutdown(wait=True)
        assert not station.server.wait_for_termination(PATIENCE)
        with pytest.raises(grpc.RpcError):
            echo(b"x")

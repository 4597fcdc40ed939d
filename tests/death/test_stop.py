"""SIGSTOP of either side: deadlines fire, and what comes late harms nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent import futures
from functools import partial
from time import monotonic
from typing import Any

import grpc
import pytest

import localrpc
from localrpc._core import lib
from localrpc.drive.core import SIGNAL_CHECK
from tests.peers import processes
from tests.peers.journal import PATIENCE, Journal, Pen
from tests.peers.processes import Peer
from tests.peers.scenes import LARGE, Stage
from tests.peers.station import Station

Code = grpc.StatusCode
MIB = 1 << 20
TIMEOUT = 0.2
BOUND = 5.0
"""Seconds that "on time" may take on a machine under load; tests/soak measures."""

CALLS: dict[str, Callable[[Stage], object]] = {
    "unary": lambda stage: stage.channel.unary_unary("/station/echo")(b"late", timeout=TIMEOUT),
    "unary future": lambda stage: (
        stage.channel.unary_unary("/station/echo").future(b"late", timeout=TIMEOUT).result(PATIENCE)
    ),
    "large unary": lambda stage: stage.channel.unary_unary("/station/echo")(
        bytes(LARGE), timeout=TIMEOUT
    ),
    "server stream": lambda stage: list(
        stage.channel.unary_stream("/station/trickle")(b"", timeout=TIMEOUT)
    ),
    "client stream": lambda stage: stage.channel.stream_unary("/station/consume")(
        iter([b"late"] * 3), timeout=TIMEOUT
    ),
    "large client stream": lambda stage: stage.channel.stream_unary("/station/consume")(
        iter([bytes(LARGE)] * 2), timeout=TIMEOUT
    ),
    "both streams": lambda stage: list(
        stage.channel.stream_stream("/station/mirror")(iter([b"late"] * 3), timeout=TIMEOUT)
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_stopped_server_does_not_hold_up_a_deadline(target: str, name: str) -> None:
    with processes.server(target) as server, Stage(target) as stage:
        echo = stage.channel.unary_unary("/station/echo")
        assert echo(b"before") == b"before"
        server.stop()
        begin = monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            CALLS[name](stage)
        assert TIMEOUT * 0.9 < monotonic() - begin < BOUND
        error: Any = caught.value
        assert error.code() is Code.DEADLINE_EXCEEDED
        server.go_on()
        # The server's result of the late call is not an answer to these.
        for number in range(20):
            assert echo(b"%d" % number, timeout=PATIENCE) == b"%d" % number
        assert stage.channel.stream_unary("/station/consume")(iter([b"x"] * 3)) == b"3"


def test_a_call_outlasts_its_servers_stop(target: str) -> None:
    with (
        processes.server(target) as server,
        Stage(target) as stage,
        futures.ThreadPoolExecutor(1) as pool,
    ):
        echo = stage.channel.unary_unary("/station/echo")
        assert echo(b"before") == b"before"
        server.stop()
        waiting = pool.submit(echo, b"patient")
        server.go_on()
        assert waiting.result(PATIENCE) == b"patient"


def wait_with_a_timeout(target: str, pen: Pen) -> None:
    """A client whose calls end by their deadlines while it is stopped."""
    with Stage(target) as stage:
        call = stage.channel.unary_stream("/station/trickle")(b"", timeout=TIMEOUT)
        assert next(call) == b"first"
        pen.say("begun")
        try:
            next(call)
        except grpc.RpcError as error:
            pen.say("failed", error.code().name)
        pen.say("echoed", stage.channel.unary_unary("/station/echo")(b"after"))


def test_a_stopped_clients_deadline_fires_at_the_server(target: str) -> None:
    journal = Journal()
    station = Station(target, journal)
    try:
        with Peer(wait_with_a_timeout, target) as client:
            client.hear("begun")
            client.stop()
            assert journal.hear("over", "trickle") == ("over", "trickle", False)
            journal.hear("left", "trickle")
            with Stage(target) as stage:
                assert stage.channel.unary_unary("/station/echo")(b"x") == b"x"
            client.go_on()
            assert client.hear("failed") == ("failed", "DEADLINE_EXCEEDED")
            assert client.hear("echoed") == ("echoed", b"after")
    finally:
        station.stop()


def consume_forever(target: str, pen: Pen) -> None:
    with Stage(target) as stage:
        call = stage.channel.unary_stream("/station/produce")(b"16000")
        next(call)
        pen.say("begun")
        while len(next(call)) == 16_000:
            pass


def test_a_stopped_reader_holds_up_no_other_client(target: str) -> None:
    journal = Journal()
    station = Station(target, journal)
    try:
        with Peer(consume_forever, target) as client:
            client.hear("begun")
            client.stop()
            with Stage(target) as stage:
                echo = partial(stage.channel.unary_unary("/station/echo"), timeout=PATIENCE)
                assert [echo(b"%d" % n) for n in range(50)] == [b"%d" % n for n in range(50)]
                client.go_on()
                client.stop()
                assert echo(b"x") == b"x"
            client.kill()
            journal.hear("over", "produce")
            journal.hear("left", "produce")
    finally:
        station.stop()


def test_a_new_client_of_a_stopped_server_waits_for_its_deadline(target: str) -> None:
    with processes.server(target) as server, localrpc.insecure_channel(target) as channel:
        echo: Any = channel.unary_unary("/station/echo")
        server.stop()
        with pytest.raises(grpc.RpcError) as caught:
            echo(b"", timeout=TIMEOUT)
        error: Any = caught.value
        assert error.code() is Code.DEADLINE_EXCEEDED
        server.go_on()
        assert echo(b"x", timeout=PATIENCE) == b"x"


def test_a_call_that_waits_for_room_keeps_its_connection(target: str) -> None:
    with processes.server(target) as server, localrpc.insecure_channel(target) as channel:
        echo: Any = channel.unary_unary("/station/echo")
        assert echo(b"before") == b"before"
        connector = channel._connector
        session = connector.peek()
        server.stop()
        with futures.ThreadPoolExecutor(20) as threads:
            # These fill the link: the last of them waits for room.
            others = [threads.submit(echo, bytes([n]) * MIB) for n in range(20)]
            # The main thread comes back from its wait now and then, for Python's signals.
            lib.lr_signal_check(1_000_000)
            try:
                going_on = threading.Timer(0.2, server.go_on)
                going_on.start()
                assert echo(b"x" * 10_000, timeout=PATIENCE) == b"x" * 10_000
            finally:
                lib.lr_signal_check(int((SIGNAL_CHECK or 0) * 1e9))
                going_on.join()
            for number, other in enumerate(others):
                assert other.result(PATIENCE) == bytes([number]) * MIB
        assert connector.peek() is session

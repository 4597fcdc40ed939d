"""kill -9 of either side in the middle of every kind of call: the other side notices at once."""

from __future__ import annotations

import threading
from concurrent import futures
from time import monotonic
from typing import Any

import grpc
import pytest

import localrpc
from tests.peers import processes
from tests.peers.journal import PATIENCE, Journal
from tests.peers.scenes import SCENES, Stage
from tests.peers.station import Station

Code = grpc.StatusCode
Connectivity = grpc.ChannelConnectivity
BOUND = 5.0
"""Seconds that "at once" may take on a machine under load; tests/soak measures."""


@pytest.mark.parametrize("name", SCENES)
def test_a_killed_server_makes_its_clients_calls_unavailable(target: str, name: str) -> None:
    scene = SCENES[name]
    with (
        processes.server(target) as server,
        Stage(target, server.stop) as stage,
        futures.ThreadPoolExecutor(1) as pool,
    ):
        waiting = pool.submit(scene.begin(stage))
        if not scene.frozen:
            server.hear("entered", scene.method)
        server.kill()
        begin = monotonic()
        error: Any = waiting.exception(PATIENCE)
        assert isinstance(error, grpc.RpcError), error
        assert monotonic() - begin < BOUND
        assert error.code() is Code.UNAVAILABLE
        assert error.details()


@pytest.mark.parametrize("name", SCENES)
def test_a_killed_client_ends_its_calls_at_the_server(target: str, name: str) -> None:
    scene = SCENES[name]
    journal = Journal()
    station = Station(target, journal)
    try:
        with processes.client(target, name) as client:
            client.hear("begun")
            if name != "unary_large_request":  # which may be cut before it is whole
                journal.hear("entered", scene.method)
            client.kill()
            client.join()
            if name != "unary_large_request":
                assert journal.hear("over", scene.method) == ("over", scene.method, False)
                journal.hear("left", scene.method)
            if scene.reads:
                journal.hear("broken", scene.method)
        with Stage(target) as stage:
            assert stage.channel.unary_unary("/station/echo")(b"x", timeout=PATIENCE) == b"x"
    finally:
        station.stop()


def test_an_idle_clients_next_call_reports_that_no_server_listens(target: str) -> None:
    with processes.server(target) as server, Stage(target) as stage:
        echo = stage.channel.unary_unary("/station/echo")
        assert echo(b"x") == b"x"
        server.kill()
        server.join()
        with pytest.raises(grpc.RpcError) as caught:
            echo(b"y")
        error: Any = caught.value
        assert error.code() is Code.UNAVAILABLE
        assert target in error.details()


def test_an_idle_client_does_not_notice_a_killed_and_restarted_server(target: str) -> None:
    with localrpc.insecure_channel(target) as channel:
        echo: Any = channel.unary_unary("/station/echo")
        count: Any = channel.unary_stream("/station/trickle")
        for _ in range(3):
            with processes.server(target):
                assert echo(b"x") == b"x"
            with processes.server(target):
                assert next(count(b"")) == b"first"


def test_a_subscriber_is_notified_of_the_servers_death(target: str) -> None:
    states: list[grpc.ChannelConnectivity] = []
    lost = threading.Event()

    def hear(state: grpc.ChannelConnectivity) -> None:
        if state is Connectivity.IDLE and states[-1:] == [Connectivity.READY]:
            lost.set()
        states.append(state)

    with processes.server(target) as server, Stage(target) as stage:
        stage.channel.subscribe(hear, try_to_connect=True)
        grpc.channel_ready_future(stage.channel).result(PATIENCE)
        server.kill()
        assert lost.wait(PATIENCE), states

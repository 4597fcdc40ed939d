"""Kills leave nothing: no descriptor, thread, mapping, name, socket or process."""

from __future__ import annotations

import gc
import itertools
import signal
from concurrent import futures
from typing import Any

import grpc
import pytest

import localrpc
from tests.peers import census, processes
from tests.peers.journal import PATIENCE, Journal
from tests.peers.scenes import SCENES, Stage
from tests.peers.station import Station

KILLS = 8


def warm_up(target: str) -> None:
    """Have the fork server and what else is made once."""
    with processes.server(target) as server, Stage(target) as stage:
        server.kill()
        with pytest.raises(grpc.RpcError):
            stage.channel.unary_unary("/station/hold")(b"", timeout=PATIENCE)


def test_killed_servers_leave_nothing(target: str) -> None:
    warm_up(target)
    gc.collect()
    before = census.take()
    with futures.ThreadPoolExecutor(1) as pool:
        for name in itertools.islice(itertools.cycle(SCENES), KILLS):
            with processes.server(target) as server, Stage(target, server.stop) as stage:
                waiting = pool.submit(SCENES[name].begin(stage))
                server.kill()
                assert isinstance(waiting.exception(PATIENCE), grpc.RpcError)
    # A server that was killed cannot remove its name: the next one does.
    with processes.server(target) as server, Stage(target):
        server.signal(signal.SIGTERM)
        server.join()
    del stage, waiting
    census.await_same(before)


def test_killed_clients_leave_nothing_at_the_server(target: str) -> None:
    warm_up(target)
    gc.collect()
    before = census.take()
    journal = Journal()
    station = Station(target, journal)
    with Stage(target) as stage:
        echo: Any = stage.channel.unary_unary("/station/echo")
        assert echo(b"x") == b"x"
        station.fill()
        serving = census.take()
        for name in itertools.islice(itertools.cycle(SCENES), KILLS):
            with processes.client(target, name) as client:
                client.hear("begun")
                client.kill()
        census.await_same(serving)
        assert echo(b"x") == b"x"
    station.stop()
    del station, stage, echo
    census.await_same(before)


def test_one_channel_through_many_servers_leaves_nothing(target: str) -> None:
    warm_up(target)
    with localrpc.insecure_channel(target) as channel:
        echo: Any = channel.unary_unary("/station/echo")

        def miss() -> None:
            """Wait for the last server's end: what a connection has depends on how it was used."""
            with pytest.raises(grpc.RpcError):
                echo(b"x")

        with processes.server(target):
            echo(b"x")
        miss()
        before = census.take()
        for _ in range(KILLS):
            with processes.server(target):
                assert echo(b"x") == b"x"
        miss()
        census.await_same(before)

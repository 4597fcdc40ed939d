"""kill -9 of a client or a server: the other one, beyond the proxy, notices at once."""

from __future__ import annotations

from concurrent import futures
from typing import Any

import grpc
import pytest

from localrpc.proxy.process import Settings, proxying
from tests.conftest import fresh_target
from tests.peers import processes
from tests.peers.journal import PATIENCE, Journal
from tests.peers.scenes import SCENES, Stage
from tests.peers.station import Station
from tests.proxy.conftest import Loop

PAIRS = [("grpc", "shm-eventfd"), ("unix", "grpc")]
NAMES = [
    "unary_in_its_handler",
    "server_stream_that_waits",
    "client_stream_that_waits",
    "both_streams_that_wait",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_a_killed_server_makes_its_clients_calls_unavailable(
    pair: tuple[str, str], name: str, loop: Loop, runtime_directory: str
) -> None:
    front, back = (fresh_target(kind, runtime_directory) for kind in pair)
    served = proxying(Settings(front, back))
    with processes.server(back) as server, futures.ThreadPoolExecutor(1) as pool:
        loop.run(served.__aenter__())
        with Stage(front) as stage:
            waiting = pool.submit(SCENES[name].begin(stage))
            server.hear("entered", SCENES[name].method)
            server.kill()
            error: Any = waiting.exception(PATIENCE)
        loop.run(served.__aexit__(None, None, None))
    assert isinstance(error, grpc.RpcError), error
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.usefixtures("patient")
def test_a_killed_client_ends_its_calls_at_the_server(
    pair: tuple[str, str], name: str, loop: Loop, runtime_directory: str
) -> None:
    front, back = (fresh_target(kind, runtime_directory) for kind in pair)
    journal = Journal()
    scene = SCENES[name]
    station = Station(back, journal)
    served = proxying(Settings(front, back))
    loop.run(served.__aenter__())
    try:
        with processes.client(front, name) as client:
            client.hear("begun")
            journal.hear("entered", scene.method)
            client.kill()
            client.join()
            assert journal.hear("over", scene.method) == ("over", scene.method, False)
            journal.hear("left", scene.method)
            # A grpcio server may take a broken stream of requests for one that has ended.
            if scene.reads and pair[1] != "grpc":
                journal.hear("broken", scene.method)
    finally:
        loop.run(served.__aexit__(None, None, None))
        station.stop()

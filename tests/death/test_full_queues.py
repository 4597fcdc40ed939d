"""The accept queue of a stopped server fills up: new clients wait, but not beyond a deadline."""

from __future__ import annotations

from concurrent import futures
from typing import Any

import grpc
import pytest

import localrpc
from tests.conftest import fresh_target
from tests.peers import processes
from tests.transports import request_places


@pytest.fixture(params=request_places.KINDS)
def target(request: pytest.FixtureRequest, runtime_directory: str) -> str:
    return fresh_target(request.param, runtime_directory)


def test_a_full_accept_queue_of_a_stopped_server_is_deadline_exceeded(target: str) -> None:
    with processes.server(target) as server:
        server.stop()
        with request_places.place_of(target) as place:
            place.fill()
        with localrpc.insecure_channel(target) as channel:
            echo: Any = channel.unary_unary("/station/echo")
            with pytest.raises(grpc.RpcError) as caught:
                echo(b"", timeout=0.1)
            error: Any = caught.value
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            server.go_on()
            assert echo(b"x", timeout=20) == b"x"


def test_a_client_waits_for_room_in_a_full_accept_queue(target: str) -> None:
    with processes.server(target) as server, futures.ThreadPoolExecutor(1) as pool:
        server.stop()
        with request_places.place_of(target) as place:
            place.fill()
        with localrpc.insecure_channel(target) as channel:
            echo: Any = channel.unary_unary("/station/echo")
            call = pool.submit(echo, b"x", timeout=20)
            server.go_on()
            assert call.result() == b"x"

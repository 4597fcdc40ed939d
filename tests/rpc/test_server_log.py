"""A server's log says where it serves, and that it stops."""

from __future__ import annotations

import logging
import socket
import threading
from concurrent import futures
from typing import Any

import grpc
import pytest

import localrpc
from localrpc.options import Options
from localrpc.transports.handshake import make_hello
from localrpc.wire.greeting import hello_frame

from .house import PATIENCE, dial


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "localrpc.server")
    return caplog


def test_the_start_and_the_stop_are_logged(any_target: str, said: pytest.LogCaptureFixture) -> None:
    server = localrpc.server(futures.ThreadPoolExecutor(1))
    server.add_insecure_port(any_target)
    assert said.messages == []
    server.start()
    assert said.messages == [f"serving on {any_target}"]
    server.stop(None)
    assert said.messages[1:] == ["stopping: no new calls, 0 in progress", "stopped"]
    assert {record.name for record in said.records} == {"localrpc.server"}


def test_the_chosen_port_is_logged(said: pytest.LogCaptureFixture) -> None:
    server = localrpc.server(futures.ThreadPoolExecutor(1))
    ports = [server.add_insecure_port(f"{kind}127.0.0.1:0") for kind in ("tcp:", "grpc:")]
    server.start()
    assert said.messages == [
        f"serving on {kind}127.0.0.1:{port}"
        for kind, port in zip(("tcp:", "grpc:"), ports, strict=True)
    ]
    server.stop(None)


def test_a_port_added_later_is_logged_then(one_target: str, said: pytest.LogCaptureFixture) -> None:
    server = localrpc.server(futures.ThreadPoolExecutor(1))
    server.start()
    assert said.messages == []
    server.add_insecure_port(one_target)
    assert said.messages == [f"serving on {one_target}"]
    server.stop(None)


def test_a_graceful_stop_logs_the_calls_in_progress(
    one_target: str, said: pytest.LogCaptureFixture
) -> None:
    entered, gate = threading.Event(), threading.Event()

    def hold(request: bytes, context: Any) -> bytes:
        entered.set()
        gate.wait(PATIENCE)
        return b""

    methods: dict[str, Any] = {"hold": grpc.unary_unary_rpc_method_handler(hold)}
    server = localrpc.server(
        futures.ThreadPoolExecutor(1),
        handlers=[grpc.method_handlers_generic_handler("s", methods)],
    )
    server.add_insecure_port(one_target)
    server.start()
    with dial(one_target) as channel:
        call = channel.unary_unary("/s/hold").future(b"")
        assert entered.wait(PATIENCE)
        stopped = server.stop(PATIENCE)
        server.stop(PATIENCE)
        assert said.messages[1:] == ["stopping: no new calls, 1 in progress"]
        gate.set()
        assert call.result() == b""
        assert stopped.wait(PATIENCE)
    assert said.messages[2:] == ["stopped"]


def test_the_error_for_memory_offered_to_a_connected_socket_says_where_it_is(
    said: pytest.LogCaptureFixture,
) -> None:
    """At one that listens it is accepted: test_fd.py."""
    client, sock = socket.socketpair()
    server = localrpc.server(futures.ThreadPoolExecutor(1))
    server.add_insecure_port(f"fd:{sock.detach()}")
    server.start()
    with client:
        client.sendall(hello_frame(make_hello(Options(), ring_size=1 << 20)))
        told = client.recv(4096).decode(errors="replace")
    assert "dial it as fd:N, its own end of the pair" in told
    server.stop(None)

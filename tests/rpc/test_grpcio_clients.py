"""A grpcio client at a local server gets an explanation, in its own protocol and at once."""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

import localrpc
from localrpc.wire import http2
from tests.ports import free_port

from .house import PATIENCE, await_that

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
ADVICE = "it speaks HTTP/2: a grpcio client dialled a localrpc server; make its channel with"

PLACES: dict[str, Callable[[str], tuple[str, str]]] = {
    "unix": lambda directory: (f"unix:{directory}/g.sock",) * 2,
    "unix-abstract": lambda directory: (
        ("unix-abstract:lr-grpcio" + directory.replace("/", "-"),) * 2
    ),
    "shm": lambda directory: (f"shm:{directory}/g.shm", f"unix:{directory}/g.shm"),
    "tcp": lambda directory: (f"tcp:127.0.0.1:{(port := free_port())}", f"127.0.0.1:{port}"),
}
"""Our target, and what a grpcio client would dial."""


@pytest.fixture(params=PLACES)
def places(request: pytest.FixtureRequest, runtime_directory: str) -> tuple[str, str]:
    return PLACES[request.param](runtime_directory)


@pytest.fixture
def dialled(places: tuple[str, str]) -> Iterator[str]:
    """Where our server listens, as grpcio spells it."""
    server = localrpc.server(futures.ThreadPoolExecutor(2))
    server.add_insecure_port(places[0])
    server.start()
    yield places[1]
    server.stop(None)


def _ask(channel: Any, kind: str, **named: Any) -> grpc.RpcError:
    method = getattr(channel, kind)("/a/b")
    request = iter([b"x"]) if kind.startswith("stream") else b"x"
    try:
        answer = method(request, timeout=PATIENCE, **named)
        if kind.endswith("stream"):
            list(answer)
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call went well")


@pytest.mark.parametrize("wait_for_ready", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_its_call_ends_with_advice(dialled: str, kind: str, wait_for_ready: bool) -> None:
    with grpc.insecure_channel(dialled) as channel:
        for _ in range(3):
            error: Any = _ask(channel, kind, wait_for_ready=wait_for_ready)
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED
            assert ADVICE in error.details()


def test_repeated_attempts_are_logged_once(dialled: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), grpc.insecure_channel(dialled) as channel:
        for _ in range(50):
            _ask(channel, "unary_unary")
        await_that(lambda: ADVICE in caplog.text, "the server logs which client it has refused")
    lines = [line for line in caplog.messages if ADVICE in line]
    assert len(lines) == 1


def _frame(kind: int, size: int, stream: int = 0) -> bytes:
    return struct.pack(">I", size)[1:] + struct.pack(">BBI", kind, 0, stream) + bytes(size)


@pytest.mark.parametrize(
    "data",
    [
        http2.PREFACE[:10],
        http2.PREFACE,
        http2.PREFACE + _frame(4, 0)[:5],
        http2.PREFACE + _frame(4, 1 << 20)[:100],
        http2.PREFACE + _frame(4, 6) * 1000,
        http2.PREFACE + _frame(1, 5, 1) + _frame(0, 16000, 1) * 100,
        http2.PREFACE[:16] + b"something else entirely",
    ],
    ids=["half", "preface", "cut", "huge", "many", "flood", "other"],
)
def test_the_server_goes_on_for_any_http2_input(runtime_directory: str, data: bytes) -> None:
    path = f"{runtime_directory}/stranger.sock"
    handlers: dict[str, Any] = {
        "echo": grpc.unary_unary_rpc_method_handler(lambda request, context: request)
    }
    server = localrpc.server(
        futures.ThreadPoolExecutor(2),
        handlers=[grpc.method_handlers_generic_handler("s", handlers)],
        options=[("localrpc.greeting_timeout_ms", 300)],
    )
    server.add_insecure_port(f"unix:{path}")
    server.start()
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(path)
        stranger.settimeout(PATIENCE)
        try:
            stranger.sendall(data)
        except OSError:
            pass  # the server has refused it by now
        with localrpc.insecure_channel(f"unix:{path}") as channel:
            echo: Any = channel.unary_unary("/s/echo")
            assert echo(b"there", timeout=PATIENCE) == b"there"
        try:
            while stranger.recv(4096):
                pass
        except ConnectionResetError:
            pass
    server.stop(None)

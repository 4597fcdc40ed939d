"""Methods by name: as many as a gateway likes, and a bad one ends its own call only."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

import localrpc
from localrpc._core import lib
from tests.concurrency.engines import figures

from .house import PATIENCE, dial

MANY = lib.LR_MAX_NAMES + 100


class Gateway(grpc.GenericRpcHandler):
    """Every method exists: it answers with its name, the metadata `k`, and the request."""

    def service(self, details: Any) -> Any:
        method = details.method

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            pairs: Any = context.invocation_metadata()
            said = "".join(value for key, value in pairs if key == "k")
            return f"{method} {said} ".encode() + request

        def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            for request in requests:
                yield answer(request, context)

        if method.endswith("/stream"):
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture
def channel(target: str) -> Iterator[Any]:
    options = [("grpc.absolute_max_metadata_size", 1 << 20), ("grpc.max_metadata_size", 1 << 20)]
    server = localrpc.server(futures.ThreadPoolExecutor(4), handlers=[Gateway()], options=options)
    server.add_insecure_port(target)
    server.start()
    with dial(target) as one:
        yield one
    server.stop(None).wait()


def used_up(channel: Any) -> None:
    """Have no number left, for want of bytes."""
    for number in range(10):
        channel.unary_unary(f"/{number}" + "x" * 7000)(b"", timeout=PATIENCE)


def test_the_number_of_method_names_is_not_limited(channel: Any) -> None:
    for number in range(MANY):
        name = f"/m/{number}"
        answer = channel.unary_unary(name)(b"x", timeout=PATIENCE)
        assert answer == f"{name}  x".encode()
    assert channel.unary_unary("/m/5")(b"y", timeout=PATIENCE) == b"/m/5  y"


@pytest.mark.parametrize("size", [0, 1, 24_000, 32_768, 100_000])
def test_a_method_without_a_number_takes_any_message_and_metadata(channel: Any, size: int) -> None:
    used_up(channel)
    message, name, value = bytes(size), "/" + "n" * 8191, "v" * 30_000
    expected = f"{name} {value} ".encode() + message
    call = channel.unary_unary(name)
    assert call(message, metadata=[("k", value)], timeout=PATIENCE) == expected
    assert call(message, timeout=PATIENCE) == f"{name}  ".encode() + message
    assert call(message, timeout=PATIENCE) == f"{name}  ".encode() + message
    assert call.future(message, timeout=PATIENCE).result() == f"{name}  ".encode() + message
    assert call.with_call(message, timeout=PATIENCE)[0] == f"{name}  ".encode() + message
    stream = channel.stream_stream("/without/stream")
    answers = list(stream(iter([message] * 3), timeout=PATIENCE))
    assert answers == [b"/without/stream  " + message] * 3


def test_names_are_bounded_on_a_connection(channel: Any) -> None:
    used_up(channel)
    for number in range(200):
        channel.unary_unary(f"/{number}/" + "y" * 1000)(b"", timeout=PATIENCE)
    connected = channel._connector
    assert len(connected._numbers._numbers) < 75
    assert figures(channel).miscounted == 0


BAD = {
    "empty": ("", grpc.StatusCode.CANCELLED, "CANCELLED"),
    "too long": ("/" + "x" * 20_000, grpc.StatusCode.RESOURCE_EXHAUSTED, "20001 bytes"),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("kind", ["call", "with_call", "future", "stream", "request stream"])
def test_a_bad_name_ends_its_call_alone(channel: Any, bad: str, kind: str) -> None:
    name, code, text = BAD[bad]
    beside = channel.stream_stream("/beside/stream")
    requests = iter_until(done := [False])
    answers = beside(requests, timeout=6 * PATIENCE)
    assert next(answers) == b"/beside/stream  x"
    for _ in range(3):
        with pytest.raises(grpc.RpcError) as caught:
            act(channel, name, kind)
        error: Any = caught.value
        assert error.code() is code
        assert text in error.details()
    done[0] = True
    assert list(answers)[-1] == b"/beside/stream  last"
    assert channel.unary_unary("/m/1")(b"", timeout=PATIENCE) == b"/m/1  "


def iter_until(done: list[bool]) -> Iterator[bytes]:
    yield b"x"
    pause = threading.Event()
    while not done[0]:
        pause.wait(0.005)
    yield b"last"


def act(channel: Any, name: str, kind: str) -> None:
    if kind == "call":
        channel.unary_unary(name)(b"", timeout=PATIENCE)
    elif kind == "with_call":
        channel.unary_unary(name).with_call(b"", timeout=PATIENCE)
    elif kind == "future":
        channel.unary_unary(name).future(b"", timeout=PATIENCE).result()
    elif kind == "stream":
        list(channel.unary_stream(name)(b"", timeout=PATIENCE))
    else:
        channel.stream_unary(name)(iter([b""]), timeout=PATIENCE)

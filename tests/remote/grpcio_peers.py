"""A service, its server and its client, written with grpcio alone.

As a program it is one or the other, in a process that does not import
localrpc: `serve [CERTIFICATE KEY]` prints its port and serves until its stdin
ends, `call TARGET [CERTIFICATE]` prints the transcript of play() as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc

PATIENCE = 20.0
PAIRS = (("text", "value"), ("blob-bin", b"\x00\xff"))


class Service:
    """Behaviours that take and give bytes."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.contexts: list[grpc.ServicerContext] = []

    def handlers(self) -> Any:
        uu: Any = grpc.unary_unary_rpc_method_handler
        us: Any = grpc.unary_stream_rpc_method_handler
        su: Any = grpc.stream_unary_rpc_method_handler
        ss: Any = grpc.stream_stream_rpc_method_handler
        methods = {
            "echo": uu(self.echo),
            "count": us(self.count),
            "total": su(self.total),
            "mirror": ss(self.mirror),
            "headers": uu(self.headers),
            "abort": uu(self.abort),
            "fail": uu(self.fail),
            "left": uu(self.left),
            "wait": uu(self.wait),
            "watch": us(self.watch),
            "has_ended": uu(self.has_ended),
        }
        return grpc.method_handlers_generic_handler("stranger", methods)

    def echo(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        return request

    def count(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number

    def total(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        return b"%d" % sum(map(int, requests))

    def mirror(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        yield from requests

    def headers(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        pairs = [(key, value) for key, value in context.invocation_metadata()]
        ours: Any = [pair for pair in pairs if pair in PAIRS]
        context.send_initial_metadata(ours)
        context.set_trailing_metadata(ours)
        return request

    def abort(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata((("why", "because"),))
        context.abort(grpc.StatusCode.NOT_FOUND, request.decode())

    def fail(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        raise ValueError(request.decode())

    def left(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        # grpcio rounds a timeout up before it sends it.
        return b"in time" if 0 < context.time_remaining() <= PATIENCE + 1 else b"late"

    def wait(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.contexts.append(context)
        self.entered.release()
        self.gate.wait(PATIENCE)
        return request

    def watch(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """Continue until the client has gone."""
        if not context.add_callback(self.ended.set):
            return
        yield b"watching"
        self.ended.wait(PATIENCE)

    def has_ended(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        return b"yes" if self.ended.wait(PATIENCE) else b"no"


def told(error: Any) -> list[str]:
    return [error.code().name, error.details()]


def failure(call: Any) -> Any:
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("no error")


def play(channel: Any) -> dict[str, Any]:
    """Every kind of call, and every way in which one ends."""

    def unary(name: str) -> Any:
        return channel.unary_unary(f"/stranger/{name}")

    story: dict[str, Any] = {
        "echo": unary("echo")(b"x", timeout=PATIENCE).decode(),
        "large": len(unary("echo")(bytes(3 << 20), timeout=PATIENCE)),
        "count": [int(n) for n in channel.unary_stream("/stranger/count")(b"5", timeout=PATIENCE)],
        "total": int(channel.stream_unary("/stranger/total")(iter([b"1", b"2"]), timeout=PATIENCE)),
        "mirror": [
            answer.decode()
            for answer in channel.stream_stream("/stranger/mirror")(
                iter([b"a", b"b"]), timeout=PATIENCE
            )
        ],
        "left": unary("left")(b"", timeout=PATIENCE).decode(),
        "fail": told(failure(lambda: unary("fail")(b"reason", timeout=PATIENCE))),
        "unknown": told(failure(lambda: unary("nothing")(b"", timeout=PATIENCE))),
        "late": told(failure(lambda: unary("wait")(b"", timeout=0.1))),
    }
    _, call = unary("headers").with_call(b"", metadata=PAIRS, timeout=PATIENCE)
    story["headers"] = [
        tuple((key, value) for key, value in pairs if (key, value) in PAIRS) == PAIRS
        for pairs in (call.initial_metadata(), call.trailing_metadata())
    ]
    error = failure(lambda: unary("abort")(b"nowhere", timeout=PATIENCE))
    story["abort"] = [*told(error), [list(pair) for pair in error.trailing_metadata()]]
    watched = channel.unary_stream("/stranger/watch")(b"", timeout=PATIENCE)
    story["watch"] = next(watched).decode()
    watched.cancel()
    story["cancelled"] = told(failure(lambda: next(watched)))
    story["has_ended"] = unary("has_ended")(b"", timeout=PATIENCE).decode()
    return story


EXPECTED: dict[str, Any] = {
    "echo": "x",
    "large": 3 << 20,
    "count": [0, 1, 2, 3, 4],
    "total": 3,
    "mirror": ["a", "b"],
    "left": "in time",
    "fail": ["UNKNOWN", "Exception calling application: reason"],
    "unknown": ["UNIMPLEMENTED", "Method not found!"],
    "late": ["DEADLINE_EXCEEDED", "Deadline Exceeded"],
    "headers": [True, True],
    "abort": ["NOT_FOUND", "nowhere", [["why", "because"]]],
    "watch": "watching",
    "cancelled": ["CANCELLED", "Locally cancelled by application!"],
    "has_ended": "yes",
}


def serve(certificate: str | None = None, key: str | None = None) -> None:
    service = Service()
    server = grpc.server(futures.ThreadPoolExecutor(8), [service.handlers()])
    if certificate is None or key is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        pair = Path(key).read_bytes(), Path(certificate).read_bytes()
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    service.gate.set()
    server.stop(None)


def call(target: str, certificate: str | None = None) -> None:
    if certificate is None:
        channel = grpc.insecure_channel(target)
    else:
        credentials = grpc.ssl_channel_credentials(Path(certificate).read_bytes())
        channel = grpc.secure_channel(target, credentials)
    with channel:
        print(json.dumps(play(channel)))


if __name__ == "__main__":
    part: Any = {"serve": serve, "call": call}[sys.argv[1]]
    part(*sys.argv[2:])
    assert not {name for name in sys.modules if name.split(".")[0] == "localrpc"}

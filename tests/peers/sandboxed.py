"""Calls of every kind over every target named in argv, both ends in this process.

Prints a line for each: "SCHEME ok", or what went wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc

import localrpc

PATIENCE = 20
LARGE = bytes(3 << 20)


def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
    return request


def count(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    return (b"%d" % number for number in range(int(request)))


def mirror(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    yield from requests


def try_all(target: str) -> None:
    handlers: Any = {
        "echo": grpc.unary_unary_rpc_method_handler(echo),
        "count": grpc.unary_stream_rpc_method_handler(count),
        "mirror": grpc.stream_stream_rpc_method_handler(mirror),
    }
    pool = futures.ThreadPoolExecutor(4)
    server = localrpc.server(pool, (grpc.method_handlers_generic_handler("s", handlers),))
    server.add_insecure_port(target)
    server.start()
    channel: Any = localrpc.insecure_channel(target)
    with channel:
        for _ in range(50):
            assert channel.unary_unary("/s/echo")(b"x", timeout=PATIENCE) == b"x"
        assert channel.unary_unary("/s/echo")(LARGE, timeout=PATIENCE) == LARGE
        assert len(list(channel.unary_stream("/s/count")(b"100", timeout=PATIENCE))) == 100
        pieces = [b"%d" % number for number in range(100)]
        said = channel.stream_stream("/s/mirror")(iter(pieces), timeout=PATIENCE)
        assert list(said) == pieces
    server.stop(None).wait()


for target in sys.argv[1:]:
    scheme = target.partition(":")[0]
    try:
        try_all(target)
        print(scheme, "ok")
    except grpc.RpcError as error:
        failed: Any = error
        print(scheme, failed.code().name, failed.details())

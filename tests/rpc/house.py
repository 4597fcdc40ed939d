"""A server with behaviours of every kind and a channel to it, in one process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc

import localrpc
from tests.endings import at_end

PATIENCE = 10.0
"""Seconds after which something that must happen has failed."""


def await_that(condition: Callable[[], bool], what: str) -> None:
    """Wait for what no event announces."""
    pause = threading.Event()
    for _ in range(int(PATIENCE * 200)):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError(f"not within {PATIENCE} s: {what}")


def dial(target: str, options: Any = None) -> Any:
    """A channel as its users without type stubs see it."""
    return localrpc.insecure_channel(target, options)


class House:
    """Behaviours take and give bytes; `gate` lets the waiting ones go."""

    def __init__(self, target: str, *, workers: int = 4, **named: Any) -> None:
        self.target = target
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)
        self.ended = threading.Event()
        self.contexts: list[grpc.ServicerContext] = []
        self.broken: list[grpc.RpcError] = []
        self.pool = named.pop("pool", None) or futures.ThreadPoolExecutor(workers)
        channel_options = named.pop("channel_options", None)
        self.server = localrpc.server(self.pool, handlers=(self.handlers(),), **named)
        self.server.add_insecure_port(target)
        self.server.start()
        self.channel: Any = localrpc.insecure_channel(target, channel_options)

    def __enter__(self) -> House:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.gate.set()
        self.channel.close()
        self.server.stop(None)
        self.pool.shutdown(wait=True)

    def handlers(self) -> Any:
        uu: Any = grpc.unary_unary_rpc_method_handler
        us: Any = grpc.unary_stream_rpc_method_handler
        su: Any = grpc.stream_unary_rpc_method_handler
        ss: Any = grpc.stream_stream_rpc_method_handler
        return grpc.method_handlers_generic_handler(
            "house",
            {
                "echo": uu(self.echo, bytes, bytes),
                "wait": uu(self.wait),
                "fail": uu(self.fail),
                "abort": uu(self.abort),
                "headers": uu(self.headers),
                "count": us(self.count),
                "drip": us(self.drip),
                "length": su(self.length),
                "mirror": ss(self.mirror),
                "watch": uu(self.watch),
                "listen": su(self.listen),
            },
        )

    def echo(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        return request

    def wait(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.contexts.append(context)
        self.entered.release()
        self.gate.wait(PATIENCE)
        return request

    def fail(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        raise ValueError(request.decode())

    def abort(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata((("why", "because"),))
        context.abort(grpc.StatusCode.NOT_FOUND, request.decode())
        raise AssertionError("abort() returned")

    def headers(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        pairs = tuple((key, value) for key, value in context.invocation_metadata())
        sent = tuple(pair for pair in pairs if pair[0] != "user-agent")
        context.send_initial_metadata(sent)
        context.set_trailing_metadata((*sent, ("peer", context.peer())))
        return request

    def count(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number

    def drip(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"first"
        self.contexts.append(context)
        at_end(context, self.ended.set)
        self.entered.release()
        self.gate.wait(PATIENCE)
        yield b"second"

    def length(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        return b"%d" % sum(len(request) for request in requests)

    def mirror(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        yield from requests

    def watch(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Returns once its client has gone."""
        at_end(context, self.ended.set)
        self.contexts.append(context)
        self.entered.release()
        self.ended.wait(PATIENCE)
        return b""

    def listen(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """Reads until the stream breaks, or ends."""
        self.contexts.append(context)
        self.entered.release()
        try:
            for _ in requests:
                pass
        except grpc.RpcError as error:
            self.broken.append(error)
            raise
        finally:
            self.ended.set()
        return b""

    def enter(self) -> None:
        """Wait until a handler has said that it runs."""
        assert self.entered.acquire(timeout=PATIENCE)

    def unary(self, method: str) -> Any:
        return self.channel.unary_unary(f"/house/{method}")

    def stream(self, method: str) -> Any:
        return self.channel.unary_stream(f"/house/{method}")

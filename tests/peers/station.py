"""A server that says what becomes of its calls."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc

import localrpc
from tests.peers.journal import PATIENCE, Pen

ANY_SIZE = (("grpc.max_receive_message_length", -1),)
_EVER = 120.0  # seconds: longer than any test


class Station:
    """Messages are bytes. `pen` records each call: entered, over, left.

    "over" comes from the context's callback, "left" when the handler has ended.
    """

    def __init__(self, target: str, pen: Pen, *, workers: int = 8) -> None:
        self._pen = pen
        self._produced = 0
        self._workers = workers
        self.pool = futures.ThreadPoolExecutor(workers)
        self.server = localrpc.server(self.pool, (self._handlers(),), options=ANY_SIZE)
        self.server.add_insecure_port(target)
        self.server.start()

    def fill(self) -> None:
        """Have the pool make all of its threads, so that they can be counted."""
        barrier = threading.Barrier(self._workers)
        futures.wait([self.pool.submit(barrier.wait, PATIENCE) for _ in range(self._workers)])

    def stop(self) -> None:
        self.server.stop(None)
        self.pool.shutdown(wait=True)

    def _handlers(self) -> Any:
        uu: Any = grpc.unary_unary_rpc_method_handler
        us: Any = grpc.unary_stream_rpc_method_handler
        su: Any = grpc.stream_unary_rpc_method_handler
        ss: Any = grpc.stream_stream_rpc_method_handler
        return grpc.method_handlers_generic_handler(
            "station",
            {
                "echo": uu(lambda request, context: request),
                "produced": uu(lambda request, context: b"%d" % self._produced),
                "hold": uu(self._hold),
                "answer": uu(self._answer),
                "trickle": us(self._trickle),
                "produce": us(self._produce),
                "consume": su(self._consume),
                "reads_nothing": su(self._reads_nothing),
                "mirror": ss(self._mirror),
                "flood": ss(self._flood),
            },
        )

    def _enter(self, name: str, context: grpc.ServicerContext) -> threading.Event:
        over = threading.Event()

        def end() -> None:
            self._pen.say("over", name, context.is_active())
            over.set()

        if not context.add_callback(end):
            end()  # its client has gone before the handler came
        self._pen.say("entered", name)
        return over

    def _hold(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self._enter("hold", context).wait(_EVER)
        self._pen.say("left", "hold")
        return request

    def _answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self._enter("answer", context)
        self._produced = 1
        self._pen.say("left", "answer")
        return bytes(int(request))

    def _trickle(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        over = self._enter("trickle", context)
        yield b"first"
        over.wait(_EVER)
        self._pen.say("left", "trickle")
        yield b"second"

    def _produce(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self._enter("produce", context)
        yield from self._endless(int(request), "produce")

    def _endless(self, size: int, name: str) -> Iterator[bytes]:
        message = bytes(size)
        self._produced = 0
        try:
            while True:
                self._produced += 1
                yield message
        finally:
            self._pen.say("left", name)

    def _consume(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        return b"%d" % sum(1 for _ in self._read(requests, context, "consume"))

    def _mirror(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        yield from self._read(requests, context, "mirror")

    def _read(
        self, requests: Iterator[bytes], context: grpc.ServicerContext, name: str
    ) -> Iterator[bytes]:
        """Yield the requests; record a failing iterator before the handler is left."""
        first = next(requests)
        self._enter(name, context)
        yield first
        try:
            yield from requests
        except grpc.RpcError:
            self._pen.say("broken", name)
            raise
        finally:
            self._pen.say("left", name)

    def _reads_nothing(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        self._enter("reads_nothing", context).wait(_EVER)
        self._pen.say("left", "reads_nothing")
        return b""

    def _flood(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        self._enter("flood", context)
        yield from self._endless(16_000, "flood")


def serve(target: str, pen: Pen) -> None:
    """A process's whole life as a server."""
    station = Station(target, pen)
    localrpc.stop_on_signals(station.server)
    pen.say("serving")
    station.server.wait_for_termination(_EVER)

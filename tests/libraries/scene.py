"""One service, called by localrpc over every kind of target, and by grpcio beside it.

A library has to record the same for calls by localrpc as for calls by grpcio.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import grpc

from localrpc.testing import serving
from tests.endings import at_end

PATIENCE = 20.0
"""Seconds after which something that must happen has failed."""

SERVICE = "library.Service"
TARGETS = ("shm:", "unix:", "pipe:", "mq:", "sysvmq:", "file:", "tcp:", "inproc:")


@dataclass(frozen=True)
class Word:
    """What behaviours take and give, as they do protobuf's messages; clients send bytes."""

    data: bytes = b""


Serve = Callable[..., AbstractContextManager[Any]]
"""As localrpc.testing.serving(): handlers, and `interceptors`, to a channel."""


class Service:
    """Behaviours of every kind, and of every way to fail."""

    def __init__(self) -> None:
        self.entered = threading.Event()

    def handler(self) -> Any:
        behaviours: dict[str, tuple[Any, Callable[[Any, Any], Any]]] = {
            "Echo": (grpc.unary_unary_rpc_method_handler, self.echo),
            "Count": (grpc.unary_stream_rpc_method_handler, self.count),
            "Total": (grpc.stream_unary_rpc_method_handler, self.total),
            "Mirror": (grpc.stream_stream_rpc_method_handler, self.mirror),
            "Fail": (grpc.unary_unary_rpc_method_handler, self.fail),
            "Refuse": (grpc.unary_unary_rpc_method_handler, self.refuse),
            "Choose": (grpc.unary_unary_rpc_method_handler, self.choose),
            "Break": (grpc.unary_stream_rpc_method_handler, self.break_off),
            "Wait": (grpc.unary_unary_rpc_method_handler, self.wait),
        }
        methods = {
            name: make(behaviour, Word, lambda word: word.data)
            for name, (make, behaviour) in behaviours.items()
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def echo(self, request: Word, context: Any) -> Word:
        return request

    def total(self, requests: Iterator[Word], context: Any) -> Word:
        return Word(b"%d" % sum(len(request.data) for request in requests))

    def mirror(self, requests: Iterator[Word], context: Any) -> Iterator[Word]:
        yield from requests

    def count(self, request: Word, context: Any) -> Iterator[Word]:
        for number in range(int(request.data)):
            yield Word(b"%d" % number)

    def fail(self, request: Word, context: Any) -> Word:
        raise ValueError("no")

    def refuse(self, request: Word, context: Any) -> Word:
        context.abort(grpc.StatusCode.NOT_FOUND, "nothing")
        raise AssertionError("abort() returned")

    def choose(self, request: Word, context: Any) -> Word:
        context.set_code(grpc.StatusCode.DATA_LOSS)
        context.set_details("lost")
        return Word()

    def break_off(self, request: Word, context: Any) -> Iterator[Word]:
        yield Word(b"first")
        context.abort(grpc.StatusCode.UNAVAILABLE, "enough")

    def wait(self, request: Word, context: Any) -> Word:
        """Until its client has gone."""
        gone = threading.Event()
        at_end(context, gone.set)
        self.entered.set()
        gone.wait(PATIENCE)
        return Word()


def call_everything(channel: Any) -> list[Any]:
    """Every kind of call, every way to make one and every way to end; what came of each."""

    def named(kind: str, method: str) -> Any:
        return getattr(channel, kind)(f"/{SERVICE}/{method}")

    def outcome(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except grpc.RpcError as error:
            failed: Any = error
            return [str(failed.code()), failed.details()]

    echo, total = named("unary_unary", "Echo"), named("stream_unary", "Total")
    return [
        echo(b"x"),
        echo.with_call(b"x", metadata=(("key", "value"),))[0],
        echo.future(b"x", timeout=PATIENCE).result(),
        list(named("unary_stream", "Count")(b"3")),
        total(iter([b"ab", b"c"])),
        total.with_call(iter([b"ab", b"c"]))[0],
        total.future(iter([b"ab", b"c"])).result(),
        list(named("stream_stream", "Mirror")(iter([b"a", b"b"]))),
        *(
            outcome(lambda method=method: named("unary_unary", method)(b""))  # type: ignore[misc]
            for method in ("Fail", "Refuse", "Choose", "Nothing")
        ),
        outcome(lambda: named("unary_unary", "Refuse").future(b"").result()),
        outcome(lambda: list(named("unary_stream", "Break")(b""))),
    ]


@contextmanager
def by_grpcio(*handlers: Any, interceptors: Any = None) -> Iterator[Any]:
    """As serving(), with grpcio's server and channel."""
    with TemporaryDirectory(prefix="lrt") as folder, ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool, interceptors=interceptors)
        for handler in handlers:
            if isinstance(handler, grpc.GenericRpcHandler):
                server.add_generic_rpc_handlers((handler,))
            else:
                handler(server)
        server.add_insecure_port(f"unix:{folder}/grpcio")
        server.start()
        try:
            with grpc.insecure_channel(f"unix:{folder}/grpcio") as channel:
                yield channel
        finally:
            server.stop(None)


def at(target: str) -> Serve:
    return partial(serving, target=target)


def await_that(condition: Callable[[], bool], what: str) -> None:
    """Wait for what no event announces."""
    pause = threading.Event()
    for _ in range(int(PATIENCE * 200)):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError(f"not within {PATIENCE} s: {what}")

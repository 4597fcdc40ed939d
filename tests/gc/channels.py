"""Channels and servers, used as people use them, then dropped without a close() or stop()."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc

import localrpc
from tests.endings import at_end
from tests.gc.scenes import Home, refused, result
from tests.rpc.house import PATIENCE, dial


def used(home: Home) -> None:
    channel = dial(home.target)
    assert channel.unary_unary("/house/echo")(b"x") == b"x"


def unused(home: Home) -> None:
    dial(home.target)


def outlived_by_its_method(home: Home) -> None:
    method = dial(home.target).unary_unary("/house/echo")
    assert method(b"x") == b"x"
    assert method(b"x") == b"x"


def outlived_by_a_call(home: Home) -> None:
    call = dial(home.target).unary_stream("/house/count")(b"3")
    assert len(list(call)) == 3


def dropped_with_a_call(home: Home) -> None:
    channel = dial(home.target)
    call = channel.unary_stream("/house/count")(b"10000")
    assert next(call) == b"0"


def subscribed(home: Home) -> None:
    ready = threading.Event()
    channel = dial(home.target)
    channel.subscribe(
        lambda state: ready.set() if state is grpc.ChannelConnectivity.READY else None, True
    )
    assert ready.wait(PATIENCE)


def subscribed_in_vain(home: Home) -> None:
    failed = threading.Event()
    channel = dial(home.unserved)
    failure = grpc.ChannelConnectivity.TRANSIENT_FAILURE
    channel.subscribe(lambda state: failed.set() if state is failure else None, True)
    assert failed.wait(PATIENCE)


def with_a_ready_future(home: Home) -> None:
    channel = dial(home.target)
    grpc.channel_ready_future(channel).result(PATIENCE)


def to_nobody(home: Home) -> None:
    method = dial(home.unserved).unary_unary("/house/echo")
    refused(lambda: method(b""))
    refused(lambda: result(method.future(b"")))


def waiting_for_nobody(home: Home) -> None:
    method = dial(home.unserved).unary_unary("/house/echo")
    cancelled = method.future(b"", wait_for_ready=True)
    dropped = method.future(b"", wait_for_ready=True)
    stream = dial(home.unserved).unary_stream("/house/echo")(b"", wait_for_ready=True)
    cancelled.cancel()
    del dropped, stream


class _Through(grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):
    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(details, request)

    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return continuation(details, requests)


def intercepted(home: Home) -> None:
    channel: Any = grpc.intercept_channel(dial(home.target), _Through())
    method = channel.unary_unary("/house/echo")
    assert method(b"x", timeout=PATIENCE) == b"x"
    assert method.with_call(b"x")[0] == b"x"
    assert result(method.future(b"x")) == b"x"
    # A failing one is a cycle in grpcio, whose frame has the error it raises in a local.
    assert list(channel.stream_stream("/house/mirror")(iter([b"x"]))) == [b"x"]


CHANNELS: dict[str, Callable[[Home], None]] = {
    scene.__name__: scene
    for scene in (
        used, unused, outlived_by_its_method, outlived_by_a_call, dropped_with_a_call, subscribed,
        subscribed_in_vain, with_a_ready_future, to_nobody, waiting_for_nobody, intercepted,
    )
}  # fmt: skip


# Servers


class Outside:
    """What a server's users keep; `contexts` are those that a handler has kept."""

    def __init__(self) -> None:
        self.contexts: list[Any] = []
        self.inside = threading.Event()

    def echo(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        return request

    def keep(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        at_end(context, self.inside.clear)
        self.contexts.append(context)
        return request

    def read(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        self.contexts.append(requests)
        yield next(requests)
        self.inside.set()
        yield from requests


class _Seen(grpc.ServerInterceptor):
    def intercept_service(self, continuation: Any, details: Any) -> Any:
        return continuation(details)


def _server(target: str, **named: Any) -> tuple[grpc.Server, Outside]:
    outside = Outside()
    uu: Any = grpc.unary_unary_rpc_method_handler
    ss: Any = grpc.stream_stream_rpc_method_handler
    generic = grpc.method_handlers_generic_handler(
        "s", {"echo": uu(outside.echo), "keep": uu(outside.keep), "read": ss(outside.read)}
    )
    server = localrpc.server(futures.ThreadPoolExecutor(2), handlers=(generic,), **named)
    server.add_insecure_port(target)
    return server, outside


def _use(target: str) -> None:
    with dial(target) as channel:
        assert channel.unary_unary("/s/echo")(b"x", timeout=PATIENCE) == b"x"
        assert channel.unary_unary("/s/keep")(b"x", timeout=PATIENCE) == b"x"
        call = channel.stream_stream("/s/read")(iter([b"x", b"y"]), timeout=PATIENCE)
        assert list(call) == [b"x", b"y"]


def never_started(target: str) -> None:
    _server(target)


def stopped(target: str) -> None:
    server, _ = _server(target)
    server.start()
    _use(target)
    server.stop(None)


def stopped_with_grace(target: str) -> None:
    server, _ = _server(target, interceptors=(_Seen(),))
    server.start()
    _use(target)
    assert server.stop(PATIENCE).wait(PATIENCE)


def dropped(target: str) -> None:
    server, _ = _server(target)
    server.start()
    _use(target)


def dropped_unused(target: str) -> None:
    _server(target)[0].start()


def limited(target: str) -> None:
    server, _ = _server(target, maximum_concurrent_rpcs=3)
    server.start()
    _use(target)
    server.stop(None)


def limited_and_dropped(target: str) -> None:
    server, _ = _server(target, maximum_concurrent_rpcs=3, interceptors=(_Seen(),))
    server.start()
    _use(target)


def dropped_in_a_call(target: str) -> None:
    server, outside = _server(target)
    server.start()
    over = threading.Event()

    def requests() -> Iterator[bytes]:
        yield b"x"
        over.wait(PATIENCE)

    with dial(target) as channel:
        call = channel.stream_stream("/s/read")(requests())
        assert next(call) == b"x"
        assert outside.inside.wait(PATIENCE)
        del server
        assert call.code() is not grpc.StatusCode.OK
        over.set()


SERVERS: dict[str, Callable[[str], None]] = {
    scene.__name__: scene
    for scene in (
        never_started, stopped, stopped_with_grace, dropped, dropped_unused, limited,
        limited_and_dropped, dropped_in_a_call,
    )
}  # fmt: skip

"""One call, or one channel, of each kind: used as people use them, then dropped."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from operator import methodcaller
from typing import Any

import grpc

from tests.endings import at_end
from tests.rpc.house import PATIENCE, House

LONG = 60.0


class Home(House):
    """Every method is known to both sides from the start."""

    def __init__(self, target: str, unserved: str = "") -> None:
        """`unserved` is a target without a server."""
        super().__init__(target)
        self.unserved = unserved
        linger: Any = grpc.unary_unary_rpc_method_handler(self.linger)
        generic = grpc.method_handlers_generic_handler("house", {"linger": linger})
        self.server.add_generic_rpc_handlers((generic,))
        # A call that breaks off may not reach the server, or only in a later round.
        self.unary("echo")(b"x")
        list(self.stream("count")(b"1"))
        self.channel.stream_unary("/house/length")(iter([b"x"]))
        list(self.channel.stream_stream("/house/mirror")(iter([b"x"])))

    def __enter__(self) -> Home:
        return self

    def linger(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """As watch(), without a callback of the test."""
        over = threading.Event()
        if context.add_callback(over.set):
            over.wait(PATIENCE)
        return b""


def refused(ask: Callable[[], object]) -> None:
    try:
        ask()
    except grpc.RpcError:
        return
    raise AssertionError("it did not fail")


result = methodcaller("result", PATIENCE)
"""Without a frame that knows the call. It raises itself, as grpcio's do, so a frame that
has it in a local makes a cycle."""


def slow(house: House) -> Iterator[bytes]:
    """Requests that a thread of their own has to send."""
    yield b"one"
    yield b"two"


def endless(over: threading.Event) -> Iterator[bytes]:
    """Until the call is over."""
    yield b"one"
    over.wait(PATIENCE)


# Blocking


def unary(house: House, **how: Any) -> None:
    assert house.unary("echo")(b"x", **how) == b"x"


def unary_with_call(house: House, **how: Any) -> None:
    response, call = house.unary("echo").with_call(b"x", **how)
    assert (response, call.code()) == (b"x", grpc.StatusCode.OK)


def unary_with_metadata(house: House, **how: Any) -> None:
    _, call = house.unary("headers").with_call(b"x", metadata=(("k", "v"),), **how)
    assert call.initial_metadata()


def unary_large(house: House, **how: Any) -> None:
    assert len(house.unary("echo")(bytes(300_000), **how)) == 300_000


def unary_refused(house: House, **how: Any) -> None:
    refused(lambda: house.unary("abort")(b"no", **how))


def unary_failed(house: House, **how: Any) -> None:
    refused(lambda: house.unary("fail")(b"no", **how))


def unknown_method(house: House, **how: Any) -> None:
    refused(lambda: house.channel.unary_unary("/no/such")(b"", **how))


def unary_too_late(house: House, **how: Any) -> None:
    refused(lambda: house.unary("linger")(b"", timeout=0.02))


def uploaded(house: House, **how: Any) -> None:
    assert house.channel.stream_unary("/house/length")(iter([b"x", b"yy"]), **how) == b"3"


def uploaded_slowly(house: House, **how: Any) -> None:
    method = house.channel.stream_unary("/house/length")
    response, call = method.with_call(slow(house), **how)
    assert (response, call.code()) == (b"6", grpc.StatusCode.OK)


def upload_broken(house: House, **how: Any) -> None:
    def requests() -> Iterator[bytes]:
        yield b"one"
        raise ValueError("no more")

    refused(lambda: house.channel.stream_unary("/house/length")(requests(), **how))


# Futures


def future(house: House, **how: Any) -> None:
    call = house.unary("echo").future(b"x", **how)
    assert result(call) == b"x"
    assert call.exception() is None


def future_with_callbacks(house: House, **how: Any) -> None:
    done, over = threading.Event(), threading.Event()
    call = house.unary("echo").future(b"x", **how)
    call.add_done_callback(lambda _: done.set() if call.done() else None)
    if not call.add_callback(over.set):
        over.set()
    assert done.wait(PATIENCE)
    assert over.wait(PATIENCE)
    call = None  # the callback is a cell's, and so is this


def future_with_callback_only(house: House, **how: Any) -> None:
    done = threading.Event()
    house.unary("echo").future(b"x", **how).add_done_callback(lambda call: done.set())
    assert done.wait(PATIENCE)


def future_refused(house: House, **how: Any) -> None:
    call = house.unary("abort").future(b"no", **how)
    assert call.code() is grpc.StatusCode.NOT_FOUND
    assert call.exception() is call
    refused(lambda: result(house.unary("abort").future(b"no", **how)))


def future_cancelled(house: House, **how: Any) -> None:
    call = house.unary("watch").future(b"", **how)
    house.enter()
    call.add_done_callback(lambda done: done.code())
    call.cancel()
    with contextlib.suppress(grpc.FutureCancelledError):
        result(call)
    left(house)


def future_cancelled_at_once(house: House, **how: Any) -> None:
    house.unary("echo").future(b"", **how).cancel()


def future_dropped(house: House, **how: Any) -> None:
    call = house.unary("watch").future(b"", **how)
    house.enter()
    del call
    left(house)


def future_dropped_with_callback(house: House, **how: Any) -> None:
    over = threading.Event()
    call = house.unary("watch").future(b"", **how)
    assert call.add_callback(over.set)
    house.enter()
    del call
    assert over.wait(PATIENCE)
    left(house)


def future_dropped_at_once(house: House, **how: Any) -> None:
    house.unary("echo").future(b"x", **how)


def upload_future(house: House, **how: Any) -> None:
    call = house.channel.stream_unary("/house/length").future(slow(house), **how)
    assert result(call) == b"6"


def upload_dropped(house: House, **how: Any) -> None:
    over = threading.Event()
    call = house.channel.stream_unary("/house/listen").future(endless(over), **how)
    house.enter()
    del call
    left(house)
    over.set()


def upload_cancelled(house: House, **how: Any) -> None:
    over = threading.Event()
    call = house.channel.stream_unary("/house/listen").future(endless(over), **how)
    house.enter()
    call.cancel()
    left(house)
    over.set()


# Streams


def stream(house: House, **how: Any) -> None:
    assert len(list(house.stream("count")(b"20", **how))) == 20


def stream_with_metadata(house: House, **how: Any) -> None:
    call = house.stream("count")(b"3", **how)
    assert call.initial_metadata() == ()
    assert len(list(call)) == 3
    assert call.trailing_metadata() == ()


def stream_cancelled(house: House, **how: Any) -> None:
    call = house.stream("drip")(b"", **how)
    assert next(call) == b"first"
    house.enter()
    call.cancel()
    left(house)


def stream_refused(house: House, **how: Any) -> None:
    refused(lambda: next(house.stream("abort")(b"no", **how)))


def stream_dropped(house: House, **how: Any) -> None:
    call = house.stream("drip")(b"", **how)
    assert next(call) == b"first"
    house.enter()
    del call
    left(house)


def stream_broken_off(house: House, **how: Any) -> None:
    for _ in house.stream("count")(b"1000", **how):
        break


def stream_with_callback(house: House, **how: Any) -> None:
    over = threading.Event()
    call = house.stream("count")(b"3", **how)
    call.add_done_callback(lambda _: over.set())
    assert len(list(call)) == 3
    assert over.wait(PATIENCE)


def stream_dropped_with_callback(house: House, **how: Any) -> None:
    over = threading.Event()
    call = house.stream("drip")(b"", **how)
    at_end(call, over.set)
    assert next(call) == b"first"
    house.enter()
    del call
    assert over.wait(PATIENCE)
    left(house)


def chat(house: House, **how: Any) -> None:
    call = house.channel.stream_stream("/house/mirror")(slow(house), **how)
    assert list(call) == [b"one", b"two"]


def chat_ready_made(house: House, **how: Any) -> None:
    call = house.channel.stream_stream("/house/mirror")(iter([b"one", b"two"]), **how)
    assert list(call) == [b"one", b"two"]


def chat_dropped(house: House, **how: Any) -> None:
    over = threading.Event()
    call = house.channel.stream_stream("/house/mirror")(endless(over), **how)
    assert next(call) == b"one"
    del call
    over.set()


def chat_cancelled(house: House, **how: Any) -> None:
    over = threading.Event()
    call = house.channel.stream_stream("/house/mirror")(endless(over), **how)
    assert next(call) == b"one"
    call.cancel()
    over.set()


def left(house: House) -> None:
    """Wait until the handler has been notified of its call's end."""
    assert house.ended.wait(PATIENCE)
    house.gate.set()  # a stream's handler waits for that, too
    house.ended.clear()
    house.gate.clear()
    house.contexts.clear()
    house.broken.clear()


CALLS: dict[str, Callable[..., None]] = {
    scene.__name__: scene
    for scene in (
        unary, unary_with_call, unary_with_metadata, unary_large, unary_refused, unary_failed,
        unknown_method, unary_too_late, uploaded, uploaded_slowly, upload_broken,
        future, future_with_callbacks, future_with_callback_only, future_refused,
        future_cancelled, future_cancelled_at_once, future_dropped,
        future_dropped_with_callback, future_dropped_at_once, upload_future, upload_dropped,
        upload_cancelled,
        stream, stream_with_metadata, stream_refused, stream_cancelled, stream_dropped,
        stream_broken_off,
        stream_with_callback, stream_dropped_with_callback,
        chat, chat_ready_made, chat_dropped, chat_cancelled,
    )
}  # fmt: skip

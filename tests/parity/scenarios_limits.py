"""Messages that are large or too large, on both sides and in both directions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import grpc

from .transcript import Transcript, drained, outcome, plain
from .world import (
    KINDS,
    PATIENCE,
    SERVICE,
    World,
    answering,
    asking,
    finish,
    handler,
    scenario,
    scenario_of,
    wait,
)

_RECEIVE = "grpc.max_receive_message_length"
_SEND = "grpc.max_send_message_length"


def _pair(w: World, kind: str, size: int, server: tuple[Any, ...], client: tuple[Any, ...]) -> Any:
    """A method of a kind that answers with size bytes, with options on either side."""

    def respond(request: Any, context: Any) -> bytes:
        if kind.startswith("stream"):
            list(request)
        return b"x" * size

    def respond_twice(request: Any, context: Any) -> Iterator[bytes]:
        large = respond(request, context)
        yield b"small"
        yield large

    behaviour = respond_twice if kind.endswith("stream") else respond
    channel = w.channel(w.serve({"Do": handler(kind, behaviour)}, options=server), options=client)
    return getattr(channel, kind)(f"/{SERVICE}/Do")


@scenario
def large_messages_both_ways(w: World) -> Transcript:
    size = 3_000_000

    def echo(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        yield from requests

    unary = w.method("unary_unary", lambda request, context: request[::-1])
    data = bytes(range(256)) * (size // 256)
    return {
        "unary": unary(data) == data[::-1],
        "stream": [len(each) for each in w.method("stream_stream", echo)(iter([data] * 3))],
    }


@scenario_of(*KINDS)
def large_requests_bring_their_metadata(w: World, kind: str) -> Any:
    seen: list[Any] = []

    def look(context: Any) -> None:
        own = [pair for pair in context.invocation_metadata() if pair[0] == "k"]
        seen.append([plain(own), 50 < context.time_remaining() < 61])

    method = w.method(kind, answering(kind, look))
    for size in (40_000, 400_000, 4_000_000):
        finish(kind, method, [bytes(size)], metadata=(("k", "v"),), timeout=60)
    return seen


@scenario
def response_larger_than_the_client_accepts(w: World) -> Transcript:
    return {
        kind: finish(kind, _pair(w, kind, 101, (), ((_RECEIVE, 100),)), timeout=5) for kind in KINDS
    }


@scenario
def response_as_large_as_the_client_accepts(w: World) -> Transcript:
    return {
        kind: finish(kind, _pair(w, kind, 100, (), ((_RECEIVE, 100),)), timeout=5) for kind in KINDS
    }


@scenario
def request_larger_than_the_server_accepts(w: World) -> Transcript:
    return {
        kind: finish(kind, _pair(w, kind, 1, ((_RECEIVE, 100),), ()), [b"q" * 101], timeout=5)
        for kind in KINDS
    }


@scenario
def request_larger_than_the_client_sends(w: World) -> Transcript:
    return {
        kind: finish(kind, _pair(w, kind, 1, (), ((_SEND, 100),)), [b"q" * 101], timeout=5)
        for kind in KINDS
    }


@scenario
def response_larger_than_the_server_sends(w: World) -> Transcript:
    return {
        kind: finish(kind, _pair(w, kind, 101, ((_SEND, 100),), ()), timeout=5) for kind in KINDS
    }


@scenario
def default_limit_is_four_mebibytes(w: World) -> Transcript:
    limit = 4 * 1024 * 1024
    method = w.method("unary_unary", lambda request, context: b"x" * (limit + len(request)))
    return {
        "exactly": len(method(b"")),
        "one_more": outcome(method, b"1"),
        "request": outcome(method, b"q" * (limit + 1)),
    }


@scenario
def limits_can_be_lifted(w: World) -> Transcript:
    size = 4 * 1024 * 1024 + 1
    lifted = ((_RECEIVE, -1), (_SEND, -1))
    method = _pair(w, "unary_unary", size, lifted, lifted)
    return {"size": len(method(b"q" * size))}


@scenario
def refused_message_leaves_the_channel_usable(w: World) -> Transcript:
    channel = w.channel(
        w.serve({"Do": handler("unary_unary", lambda request, context: request)}),
        options=((_RECEIVE, 100),),
    )
    method = channel.unary_unary(f"/{SERVICE}/Do")
    codes = []
    for size in (101, 5, 200, 7):
        try:
            codes.append(len(method(b"q" * size)))
        except grpc.RpcError as error:
            codes.append(plain(error.code()))
    return {"codes": codes}


@scenario
def slow_reader_loses_nothing_and_blocks_nobody(w: World) -> Transcript:
    total, size = 40, 256 * 1024
    finished = w.gate()

    def flood(request: bytes, context: Any) -> Iterator[bytes]:
        for number in range(total):
            yield bytes([number]) * size
        finished.set()

    address = w.serve(
        {
            "Flood": handler("unary_stream", flood),
            "Do": handler("unary_unary", lambda request, context: b"quick"),
        }
    )
    channel = w.channel(address)
    call = channel.unary_stream(f"/{SERVICE}/Flood")(b"")
    first = next(call)
    others = [channel.unary_unary(f"/{SERVICE}/Do")(b"", timeout=PATIENCE) for _ in range(3)]
    held_back = not finished.is_set()
    rest = [(each[0], len(each)) for each in call]
    wait(finished)
    return {
        "first": first[0],
        "others": others,
        "held_back": held_back,
        "rest": plain(rest) == [[number, size] for number in range(1, total)],
    }


@scenario
def requests_are_drawn_as_they_are_read(w: World) -> Transcript:
    size, total = 256 * 1024, 40
    drawn: list[int] = []
    entered, gate = w.gate(), w.gate()

    def ask() -> Iterator[bytes]:
        for number in range(total):
            drawn.append(number)
            yield bytes(size)

    def read(requests: Iterator[bytes], context: Any) -> bytes:
        next(requests)
        entered.set()
        wait(gate)
        return str(1 + sum(1 for _ in requests)).encode()

    call = w.method("stream_unary", read).future(ask())
    wait(entered)
    early = len(drawn) < total
    gate.set()
    return {"early": early, "answer": call.result(), "drawn": len(drawn)}


@scenario
def many_small_messages_stay_in_order(w: World) -> Transcript:
    def count(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        for request in requests:
            yield b"<" + request + b">"

    expected = [str(number).encode() for number in range(300)]
    seen = drained(w.method("stream_stream", count)(iter(expected)))
    return {"in_order": seen == [b"<" + each + b">" for each in expected]}


@scenario
def kinds_mixed_on_one_channel(w: World) -> Transcript:
    def join(requests: Iterator[bytes], context: Any) -> bytes:
        return b"+".join(requests)

    address = w.serve(
        {
            "A": handler("unary_unary", lambda request, context: request),
            "B": handler("unary_stream", lambda request, context: iter([request, request])),
            "C": handler("stream_unary", join),
            "D": handler("stream_stream", lambda requests, context: requests),
        }
    )
    channel = w.channel(address)
    methods = dict(zip("ABCD", KINDS, strict=True))
    calls = {}
    for name, kind in methods.items():
        method = getattr(channel, kind)(f"/{SERVICE}/{name}")
        start = method.future if kind.endswith("unary") else method
        calls[name] = [start(asking(kind, [b"1", b"2"])) for _ in range(5)]
    return {
        name: [
            drained(call) if methods[name].endswith("stream") else call.result() for call in each
        ]
        for name, each in calls.items()
    }


_LARGE = (("k", "v" * 25_000),)
# In grpcio it is chance if a stream's answers are seen before its end is refused.
_ANSWERED_ONCE = ("unary_unary", "stream_unary")
_MORE = (("grpc.max_metadata_size", 1 << 20), ("grpc.absolute_max_metadata_size", 1 << 20))


def _says_much(what: str, context: Any) -> None:
    if what == "initial":
        context.send_initial_metadata(_LARGE)
    elif what == "trailing":
        context.set_trailing_metadata(_LARGE)
    elif what == "details":
        context.abort(grpc.StatusCode.INTERNAL, "x" * 25_000)


def _metadata(w: World, kind: str, server: Any, client: Any) -> Transcript:
    """A call of a kind for each place where there may be too much of it."""
    told = {}
    for what in ("request", "initial", "trailing", "details"):
        behaviour = answering(kind, partial(_says_much, what))
        channel = w.channel(
            w.serve({"Do": handler(kind, behaviour)}, options=server), options=client
        )
        method = getattr(channel, kind)(f"/{SERVICE}/Do")
        given = _LARGE if what == "request" else None
        told[what] = _short(finish(kind, method, metadata=given, timeout=5))
    return told


def _short(told: Any) -> Any:
    """What was not refused, without its length."""
    if isinstance(told, dict):
        return {name: _short(value) for name, value in told.items()}
    if isinstance(told, list):
        return [_short(value) for value in told]
    return f"{len(told)} characters" if isinstance(told, str) and len(told) > 20_000 else told


@scenario_of(*_ANSWERED_ONCE)
def metadata_beyond_the_hard_limit(w: World, kind: str) -> Any:
    return _metadata(w, kind, (), ())


@scenario_of(*_ANSWERED_ONCE)
def metadata_within_raised_limits(w: World, kind: str) -> Any:
    return _metadata(w, kind, _MORE, _MORE)


@scenario_of(*_ANSWERED_ONCE)
def metadata_limits_are_the_receivers(w: World, kind: str) -> Any:
    return {"server": _metadata(w, kind, _MORE, ()), "client": _metadata(w, kind, (), _MORE)}


@scenario
def a_method_name_that_cannot_be(w: World) -> Transcript:
    channel = w.channel(w.serve({"Do": handler("unary_unary", answering("unary_unary", id))}))
    told = {}
    for name in ("", "/" + "x" * 20_000):
        for kind in KINDS:
            method = getattr(channel, kind)(name)
            told[f"{len(name)} {kind}"] = _code(finish(kind, method, timeout=5))
    method = channel.unary_unary(f"/{SERVICE}/Do")
    told["another"] = finish("unary_unary", method, timeout=5)
    return told


def _code(told: Any) -> Any:
    last = told[-1] if isinstance(told, list) else told
    return last["code"]

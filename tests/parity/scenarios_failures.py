"""User code that raises or gives nonsense, on all four sides of a call."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import grpc

from tests.endings import at_end

from .transcript import Transcript, drained, ended, outcome, plain
from .world import (
    KINDS,
    SERVICE,
    World,
    answering,
    asking,
    begin,
    finish,
    handler,
    scenario,
    scenario_of,
    wait,
)


class _Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


def _raise(error: BaseException) -> Any:
    raise error


def _raise_for(error: BaseException, context: Any) -> None:
    raise error


def _served(w: World, kind: str, behaviour: Any, **codecs: Any) -> Any:
    """A multicallable of a kind whose handler has codecs."""
    channel = w.channel(w.serve({"Do": handler(kind, behaviour, **codecs)}))
    return getattr(channel, kind)(f"/{SERVICE}/Do")


@scenario
def handlers_that_raise(w: World) -> Transcript:
    errors = (
        RuntimeError("boom"),
        ValueError(),
        KeyError("key"),
        RuntimeError("gr\u00fc\u00dfe \u2603"),
        RuntimeError("two\nlines"),
        grpc.RpcError("rpc"),
        StopIteration("stop"),
        AssertionError(),
    )
    story: Transcript = {}
    for error in errors:
        method = w.method("unary_unary", answering("unary_unary", partial(_raise_for, error)))
        story[repr(error)] = outcome(method, b"")
    story["log"] = w.logged()
    return story


@scenario
def handlers_of_every_kind_that_raise(w: World) -> Transcript:
    story: Transcript = {}
    for kind in KINDS:
        method = w.method(kind, answering(kind, lambda context: _raise(RuntimeError("boom"))))
        story[kind] = finish(kind, method)
        method = w.method(kind, lambda request, context: _raise(RuntimeError("at once")))
        story[f"{kind} at once"] = finish(kind, method)
    story["log"] = w.logged()
    return story


@scenario
def handler_raises_something_unprintable(w: World) -> Transcript:
    method = w.method("unary_unary", lambda request, context: _raise(_Unprintable()))
    return {"call": outcome(method, b""), "last_log": w.logged()[-1]}


@scenario
def handler_raises_after_setting_a_code(w: World) -> Transcript:
    def prologue(context: Any) -> None:
        context.set_code(grpc.StatusCode.ALREADY_EXISTS)
        context.set_details("there it is")
        context.set_trailing_metadata((("t", "1"),))
        raise RuntimeError("boom")

    def only_code(context: Any) -> None:
        context.set_code(grpc.StatusCode.OUT_OF_RANGE)
        raise RuntimeError("boom")

    return {
        kind: [
            finish(kind, w.method(kind, answering(kind, prologue))),
            finish(kind, w.method(kind, answering(kind, only_code))),
        ]
        for kind in KINDS
    }


@scenario
def handlers_that_return_nonsense(w: World) -> Transcript:
    story: Transcript = {}
    for kind in ("unary_unary", "stream_unary"):
        for answer in (None, 7, "text", bytearray(b"x"), [b"x"]):
            method = _served(
                w,
                kind,
                lambda request, context, answer=answer: answer,
                response_serializer=bytes.upper,
            )
            story[f"{kind} {answer!r}"] = finish(kind, method)
    story["log"] = w.logged()
    return story


@scenario
def handlers_that_yield_nonsense(w: World) -> Transcript:
    def yields(request: Any, context: Any) -> Iterator[Any]:
        yield b"good"
        yield 7

    story: Transcript = {}
    for kind in ("unary_stream", "stream_stream"):
        story[kind] = finish(kind, _served(w, kind, yields, response_serializer=bytes.upper))
    story["log"] = w.logged()
    return story


@scenario
def handlers_that_yield_none_end_the_stream(w: World) -> Transcript:
    def yields(request: Any, context: Any) -> Iterator[Any]:
        yield b"good"
        yield None
        yield b"never"

    return {"seen": drained(w.method("unary_stream", yields)(b""))}


@scenario
def response_generator_raises_midway(w: World) -> Transcript:
    def yields(request: Any, context: Any) -> Iterator[Any]:
        context.set_trailing_metadata((("t", "1"),))
        yield b"1"
        yield b"2"
        raise RuntimeError("enough")

    story: Transcript = {}
    for kind in ("unary_stream", "stream_stream"):
        call = w.method(kind, yields)(asking(kind))
        story[kind] = [drained(call), ended(call), outcome(call.result)]
    story["log"] = w.logged()
    return story


@scenario
def response_generator_aborts_midway(w: World) -> Transcript:
    def yields(request: Any, context: Any) -> Iterator[Any]:
        yield b"1"
        context.abort(grpc.StatusCode.ABORTED, "enough")

    def sets(request: Any, context: Any) -> Iterator[Any]:
        yield b"1"
        context.set_code(grpc.StatusCode.FAILED_PRECONDITION)
        context.set_details("sorry")

    return {
        kind: [finish(kind, w.method(kind, yields)), finish(kind, w.method(kind, sets))]
        for kind in ("unary_stream", "stream_stream")
    } | {"log": w.logged()}


@scenario_of(*KINDS)
def request_serializer_raises(w: World, kind: str) -> Any:
    method = w.method(
        kind,
        answering(kind, lambda context: None),
        request_serializer=lambda message: _raise(ValueError("cannot write")),
    )
    seen = [finish(kind, method)]
    if kind.endswith("unary"):
        seen.append(outcome(method.with_call, asking(kind)))
        seen.append(outcome(lambda: method.future(asking(kind)).result()))
    return [seen, w.logged()]


@scenario
def request_serializer_raises_in_the_middle(w: World) -> Transcript:
    begun, ended_there = w.gate(), w.gate()

    def write(message: bytes) -> bytes:
        if message == b"bad":
            wait(begun)
            raise ValueError("cannot write")
        return message

    def join(requests: Iterator[bytes], context: Any) -> bytes:
        at_end(context, ended_there.set)
        begun.set()
        return b"".join(requests)

    method = w.method("stream_unary", join, request_serializer=write)
    seen = outcome(method, iter([b"a", b"bad", b"c"]))
    wait(ended_there)
    return {"seen": seen}


@scenario
def requests_that_are_not_bytes(w: World) -> Transcript:
    """Without a serializer the message itself must be bytes."""
    method = w.method("unary_unary", lambda request, context: b"ok")
    return {
        repr(each): outcome(method, each, timeout=5).get("raised") for each in (7, "text", [b"x"])
    }


@scenario
def request_is_none(w: World) -> Transcript:
    method = w.method("unary_unary", lambda request, context: b"ok")
    return {
        "call": outcome(method, None),
        "with_call": outcome(method.with_call, None),
        "future": outcome(method.future, None),
        "stream": outcome(w.method("unary_stream", lambda request, context: iter(())), None),
    }


@scenario
def response_deserializer_raises(w: World) -> Transcript:
    story: Transcript = {}
    for kind in KINDS:
        method = w.method(
            kind,
            answering(kind, lambda context: None),
            response_deserializer=lambda data: _raise(ValueError("cannot read")),
        )
        story[kind] = finish(kind, method)
        if kind.endswith("unary"):
            future = method.future(asking(kind))
            story[f"{kind} future"] = [outcome(future.result), plain(future.code())]
    return {"calls": story, "log": w.logged()}


@scenario
def response_deserializer_gives_none(w: World) -> Transcript:
    story: Transcript = {}
    for kind in KINDS:
        method = w.method(
            kind, answering(kind, lambda context: None), response_deserializer=lambda data: None
        )
        story[kind] = finish(kind, method)
    return {"calls": story, "log": w.logged()}


@scenario
def request_deserializer_raises(w: World) -> Transcript:
    story: Transcript = {}
    for kind in KINDS:
        method = _served(
            w,
            kind,
            answering(kind, lambda context: None),
            request_deserializer=lambda data: _raise(ValueError("cannot read")),
        )
        story[kind] = finish(kind, method)
    return {"calls": story, "log": sorted(w.logged())}


@scenario
def response_serializer_raises(w: World) -> Transcript:
    story: Transcript = {}
    for kind in KINDS:
        method = _served(
            w,
            kind,
            answering(kind, lambda context: None),
            response_serializer=lambda message: _raise(ValueError("cannot write")),
        )
        story[kind] = finish(kind, method)
    return {"calls": story, "log": w.logged()}


@scenario_of("stream_unary", "stream_stream")
def request_iterator_raises(w: World, kind: str) -> Any:
    begun, over, looked = w.gate(), w.gate(), w.gate()
    seen: list[Any] = []

    def ask() -> Iterator[bytes]:
        yield b"1"
        wait(begun)
        raise RuntimeError("lost the thread")

    def read(requests: Iterator[bytes], context: Any) -> bytes:
        at_end(context, over.set)
        seen.append(next(requests))
        begun.set()
        drained(requests)
        wait(over)
        seen.append(outcome(next, requests))
        looked.set()
        return b""

    def stream(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        yield read(requests, context)

    call = begin(kind, w.method(kind, stream if kind.endswith("stream") else read), ask())
    error = outcome(call.result) if kind.endswith("unary") else drained(call)
    wait(looked)
    return {"error": error, "ended": ended(call), "handler": seen, "log": w.logged()}


@scenario
def request_iterator_raises_stop_iteration(w: World) -> Transcript:
    class Numbers:
        left = 2

        def __iter__(self) -> Numbers:
            return self

        def __next__(self) -> bytes:
            self.left -= 1
            if self.left < 0:
                raise StopIteration
            return b"n"

    method = w.method("stream_unary", lambda requests, context: b"".join(requests))
    return {"seen": method(Numbers())}


@scenario
def handler_reads_requests_after_their_end(w: World) -> Transcript:
    def read(requests: Iterator[bytes], context: Any) -> bytes:
        seen = [next(requests), requests.next()]  # type: ignore[attr-defined]
        story.append(seen)
        story.append([outcome(next, requests), outcome(next, requests), list(requests)])
        story.append(iter(requests) is requests)
        return b""

    story: list[Any] = []
    w.method("stream_unary", read)(iter([b"a", b"b"]))
    return {"seen": story}


@scenario
def handler_answers_before_the_requests_end(w: World) -> Transcript:
    hold, stopped = w.gate(), w.gate()

    def ask() -> Iterator[bytes]:
        yield b"1"
        wait(hold)
        yield b"2"
        stopped.set()

    story: Transcript = {}
    method = w.method("stream_unary", lambda requests, context: next(requests))
    story["stream_unary"] = outcome(method, ask())

    def first(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        yield next(requests)

    call = w.method("stream_stream", first)(ask())
    story["stream_stream"] = [drained(call), ended(call)]
    return story


@scenario
def request_iterator_is_left_alone_after_the_end(w: World) -> Transcript:
    """Once the handler has refused, no more requests are drawn than were under way."""
    drawn: list[int] = []
    refused = w.gate()

    def ask() -> Iterator[bytes]:
        for number in range(1000):
            if number == 2:
                wait(refused)
            drawn.append(number)
            yield b"x"

    def refuse(requests: Iterator[bytes], context: Any) -> bytes:
        next(requests)
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "no more")
        return b""

    call = w.method("stream_unary", refuse).future(ask())
    seen = outcome(call.result)
    refused.set()
    return {"seen": seen, "few": len(drawn) < 10}

"""Multicallables: every form of invocation and every parameter."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc

from .transcript import Transcript, drained, ended, kinds, outcome, plain, shown
from .world import KINDS, World, answering, asking, finish, scenario, scenario_of, wait


def _echo(request: bytes, context: Any) -> bytes:
    context.send_initial_metadata((("first", "1"),))
    context.set_trailing_metadata((("last", "2"),))
    return b"<" + request + b">"


@scenario
def every_kind_answers(w: World) -> Transcript:
    return {
        kind: finish(kind, w.method(kind, answering(kind, lambda context: None)), [b"a", b"b"])
        for kind in KINDS
    }


@scenario
def objects_have_grpcs_interfaces(w: World) -> Transcript:
    channel = w.channel(w.serve({}))
    return {
        "server": kinds(w.server()),
        "channel": kinds(channel),
        "multicallables": [kinds(getattr(channel, kind)("/a/b")) for kind in KINDS],
    }


@scenario
def unary_unary_forms(w: World) -> Transcript:
    method = w.method("unary_unary", _echo)
    response, call = method.with_call(b"b")
    future = method.future(b"c")
    return {
        "call": method(b"a"),
        "keyword": method(request=b"a"),
        "with_call": [response, ended(call), kinds(call)],
        "with_call_repr": shown(call),
        "future": [future.result(), ended(future), kinds(future)],
        "future_repr": shown(future),
    }


@scenario
def stream_unary_forms(w: World) -> Transcript:
    def join(requests: Iterator[bytes], context: Any) -> bytes:
        return _echo(b"+".join(requests), context)

    method = w.method("stream_unary", join)
    response, call = method.with_call(iter([b"b", b"c"]))
    future = method.future(iter([b"d"]))
    return {
        "call": method(iter([b"a", b"b"])),
        "generator": method(each for each in (b"x", b"y")),
        "nothing": method(iter([])),
        "with_call": [response, ended(call)],
        "future": [future.result(), ended(future)],
    }


@scenario
def request_iterables_that_are_no_iterators(w: World) -> Transcript:
    unary = w.method("stream_unary", lambda requests, context: b"+".join(requests))
    stream = w.method("stream_stream", lambda requests, context: requests)
    return {
        "stream_unary": outcome(unary, [b"a", b"b"], timeout=2),
        "stream_stream": outcome(lambda: drained(stream([b"a", b"b"], timeout=2))),
    }


@scenario
def response_stream_forms(w: World) -> Transcript:
    def many(request: bytes, context: Any) -> Iterator[bytes]:
        _echo(request, context)
        yield from (b"1", b"2", b"3")

    method = w.method("unary_stream", many)
    call = method(b"a")
    first = call.initial_metadata()
    responses = list(call)
    other = method(b"a")
    return {
        "kinds": kinds(call),
        "first": plain(first),
        "responses": responses,
        "ended": ended(call),
        "repr": shown(call),
        "next": [next(other), other.next(), next(other)],
        "at_the_end": [outcome(next, other), outcome(next, other)],
        "again": list(other),
        "is_own_iterator": iter(other) is other,
    }


@scenario
def responses_may_be_fewer_or_none(w: World) -> Transcript:
    return {
        "none": drained(w.method("unary_stream", lambda request, context: iter(()))(b"a")),
        "list": drained(w.method("unary_stream", lambda request, context: [b"1", b"2"])(b"a")),
        "no_iterable": drained(w.method("unary_stream", lambda request, context: 7)(b"a")),
        "nothing": drained(w.method("unary_stream", lambda request, context: None)(b"a")),
        "log": w.logged(),
    }


@scenario
def empty_messages_arrive(w: World) -> Transcript:
    def echo_all(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        yield from requests

    return {
        "unary": w.method("unary_unary", lambda request, context: request)(b""),
        "stream": drained(w.method("stream_stream", echo_all)(iter([b"", b"x", b""]))),
    }


@scenario
def conversation_in_turns(w: World) -> Transcript:
    def answer(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        for request in requests:
            yield b"re: " + request

    turns: list[threading.Event] = [w.gate() for _ in range(3)]

    def ask() -> Iterator[bytes]:
        for number, turn in enumerate(turns):
            wait(turn)
            yield str(number).encode()

    call = w.method("stream_stream", answer)(ask())
    heard = []
    for turn in turns:
        turn.set()
        heard.append(next(call))
    return {"heard": heard, "end": outcome(next, call), "ended": ended(call)}


@scenario
def timeouts_of_every_size(w: World) -> Transcript:
    story: Transcript = {}
    for kind in KINDS:
        method = w.method(kind, answering(kind, lambda context: None))
        for timeout in (None, 30, 30.5, 1e6, -1):
            story[f"{kind} {timeout}"] = finish(kind, method, timeout=timeout)
    return story


@scenario_of("unary_unary", "stream_unary")
def timeout_zero_is_over_or_just_in_time(w: World, kind: str) -> Any:
    """grpcio answers most such calls: its timer is later than the answer. Neither is wrong."""
    method = w.method(kind, answering(kind, lambda context: None))
    seen = [
        outcome(method, asking(kind), timeout=0),
        outcome(lambda: method.with_call(asking(kind), timeout=0)[0]),
        outcome(method.future(asking(kind), timeout=0).result),
    ]
    return [each == b"one" or each["code"] == "StatusCode.DEADLINE_EXCEEDED" for each in seen]


@scenario_of("unary_unary", "stream_unary")
def timeouts_of_forms_with_call_and_future(w: World, kind: str) -> Any:
    method = w.method(kind, answering(kind, lambda context: None))
    return {
        "with_call": method.with_call(asking(kind), timeout=30)[0],
        "with_call late": outcome(method.with_call, asking(kind), timeout=-1),
        "future": method.future(asking(kind), timeout=30).result(),
        "future late": outcome(method.future(asking(kind), timeout=-1).result),
    }


@scenario
def timeouts_that_are_no_numbers(w: World) -> Transcript:
    story: Transcript = {}
    for kind in KINDS:
        method = w.method(kind, answering(kind, lambda context: None))
        story[kind] = outcome(method, asking(kind), timeout="soon")["raised"]
    return story


@scenario_of(*KINDS)
def deadline_passes_in_every_kind(w: World, kind: str) -> Any:
    seen: list[Any] = []
    # On a busy machine it may pass before the handler begins, and the client's time is up long
    # before the server's, which counts from when the call has come.
    for timeout in (0.25, 2.0, 8.0):
        begun, over, looked = w.gate(), w.gate(), w.gate()
        seen.clear()

        def prologue(
            context: Any,
            begun: threading.Event = begun,
            over: threading.Event = over,
            looked: threading.Event = looked,
        ) -> None:
            if not context.add_callback(over.set):
                return
            begun.set()
            wait(over)
            seen.append([context.is_active(), context.time_remaining() < 0.1])
            looked.set()

        call = finish(kind, w.method(kind, answering(kind, prologue)), timeout=timeout)
        if begun.is_set():
            wait(looked)
            if seen[-1][1]:
                break
    return {"call": call, "handler": seen}


@scenario
def deadline_is_visible_to_the_handler(w: World) -> Transcript:
    seen: list[Any] = []

    def look(request: bytes, context: Any) -> bytes:
        left = context.time_remaining()
        seen.append(10 < left < 22)
        return b""

    w.method("unary_unary", look)(b"", timeout=20)
    return {"seen": seen}


@scenario
def forms_take_metadata(w: World) -> Transcript:
    def look(context: Any) -> None:
        own = [pair for pair in context.invocation_metadata() if pair[0] == "who"]
        context.set_trailing_metadata(own)

    story: Transcript = {}
    for kind in KINDS:
        method = w.method(kind, answering(kind, look))
        sent = (("who", kind),)
        if kind.endswith("unary"):
            method(asking(kind), metadata=sent)
            _, call = method.with_call(asking(kind), metadata=sent)
            future = method.future(asking(kind), metadata=sent)
            future.result()
            story[kind] = [plain(call.trailing_metadata()), plain(future.trailing_metadata())]
        else:
            call = method(asking(kind), metadata=sent)
            story[kind] = [drained(call), plain(call.trailing_metadata())]
    return story


@scenario
def forms_take_compression(w: World) -> Transcript:
    story: Transcript = {}
    for kind in KINDS:
        method = w.method(kind, answering(kind, lambda context: None))
        for how in grpc.Compression:
            story[f"{kind} {how.name}"] = finish(kind, method, compression=how)
        if kind.endswith("unary"):
            gzip = grpc.Compression.Gzip
            story[f"{kind} with_call"] = method.with_call(asking(kind), compression=gzip)[0]
            story[f"{kind} future"] = method.future(asking(kind), compression=gzip).result()
    return story


@scenario_of(*KINDS)
def call_credentials_need_a_secure_channel(w: World, kind: str) -> Any:
    token = grpc.access_token_call_credentials("token")
    method = w.method(kind, answering(kind, lambda context: None))
    seen = [finish(kind, method, credentials=token)]
    if kind.endswith("unary"):
        seen.append(outcome(method.with_call, asking(kind), credentials=token))
        future = method.future(asking(kind), credentials=token)
        seen.append([outcome(future.result), ended(future)])
    return seen


@scenario
def wait_for_ready_is_accepted_when_ready(w: World) -> Transcript:
    story: Transcript = {}
    for kind in KINDS:
        method = w.method(kind, answering(kind, lambda context: None))
        for flag in (None, False, True):
            story[f"{kind} {flag}"] = finish(kind, method, wait_for_ready=flag)
        if kind.endswith("unary"):
            story[f"{kind} with_call"] = method.with_call(asking(kind), wait_for_ready=True)[0]
            future = method.future(asking(kind), wait_for_ready=True)
            story[f"{kind} future"] = future.result()
    return story

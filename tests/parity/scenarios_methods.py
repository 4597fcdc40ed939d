"""Methods of every name, and what is seen when the sides disagree about them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc

from .transcript import Transcript, failure, outcome, shown
from .world import KINDS, SERVICE, World, answering, finish, handler, scenario


@scenario
def methods_as_generated_code_makes_them(w: World) -> Transcript:
    story: Transcript = {}
    for kind in KINDS:
        behaviour = answering(kind, lambda context: None)
        channel = w.channel(w.serve({"Do": handler(kind, behaviour)}))
        method = getattr(channel, kind)(
            f"/{SERVICE}/Do",
            request_serializer=bytes.upper,
            response_deserializer=bytes.title,
            _registered_method=True,
        )
        story[kind] = [finish(kind, method), finish(kind, method)]
    return story


@scenario
def method_names_of_every_sort(w: World) -> Transcript:
    channel = w.channel(w.serve({"Do": handler("unary_unary", lambda request, context: b"ok")}))
    story: Transcript = {}
    for name in (f"/{SERVICE}/Do", f"/{SERVICE}/Undone", "/no.Service/Do", f"{SERVICE}/Do", "x"):
        story[name] = outcome(channel.unary_unary(name), b"", timeout=5)
    story["bytes"] = outcome(channel.unary_unary(f"/{SERVICE}/Do".encode()), b"", timeout=5)
    return story


@scenario
def unknown_method_in_every_kind(w: World) -> Transcript:
    channel = w.channel(w.serve({"Do": handler("unary_unary", lambda request, context: b"ok")}))
    return {kind: finish(kind, getattr(channel, kind)(f"/{SERVICE}/No")) for kind in KINDS}


@scenario
def cardinality_differs_between_the_sides(w: World) -> Transcript:
    def one(request: Any, context: Any) -> Iterator[bytes]:
        yield b"only"

    story: Transcript = {}
    for served in KINDS:
        behaviour = one if served.endswith("stream") else answering(served, lambda context: None)
        channel = w.channel(w.serve({"Do": handler(served, behaviour)}))
        for called in KINDS:
            method = getattr(channel, called)(f"/{SERVICE}/Do")
            story[f"{called} of {served}"] = finish(called, method, timeout=5)
    return story


@scenario
def more_answers_than_a_unary_call_expects(w: World) -> Transcript:
    channel = w.channel(
        w.serve({"Do": handler("unary_stream", answering("unary_stream", lambda context: None))})
    )
    return {
        kind: finish(kind, getattr(channel, kind)(f"/{SERVICE}/Do"), timeout=0.1)
        for kind in ("unary_unary", "stream_unary")
    }


@scenario
def no_answer_where_a_unary_call_expects_one(w: World) -> Transcript:
    channel = w.channel(w.serve({"Do": handler("unary_stream", lambda request, context: iter(()))}))
    return {
        kind: finish(kind, getattr(channel, kind)(f"/{SERVICE}/Do"), timeout=5)
        for kind in ("unary_unary", "stream_unary")
    }


@scenario
def more_requests_than_a_unary_handler_expects(w: World) -> Transcript:
    channel = w.channel(w.serve({"Do": handler("unary_unary", lambda request, context: request)}))
    method = channel.stream_unary(f"/{SERVICE}/Do")
    return {"two": outcome(method, iter([b"a", b"b"]), timeout=5)}


@scenario
def request_count_a_unary_handler_refuses(w: World) -> Transcript:
    channel = w.channel(w.serve({"Do": handler("unary_unary", lambda request, context: request)}))
    method = channel.stream_unary(f"/{SERVICE}/Do")
    return {"none": outcome(method, iter([]), timeout=5)}


@scenario
def errors_are_calls_and_futures(w: World) -> Transcript:
    def refuse(request: bytes, context: Any) -> bytes:
        context.send_initial_metadata((("first", "1"),))
        context.set_trailing_metadata((("last", "2"),))
        context.abort(grpc.StatusCode.NOT_FOUND, "nowhere")
        return b""

    method = w.method("unary_unary", refuse)
    try:
        method(b"")
    except grpc.RpcError as raised:
        error: Any = raised
    told: list[Any] = []
    error.add_done_callback(told.append)
    return {
        "seen": failure(error),
        "repr": shown(error),
        "str_is_repr": str(error) == repr(error),
        "debug": "nowhere" in error.debug_error_string(),
        "result": outcome(error.result),
        "result_with_timeout": outcome(error.result, timeout=1),
        "exception": error.exception(timeout=1) is error,
        "traceback": error.traceback(timeout=1) is not None,
        "state": [error.done(), error.running(), error.cancel(), error.cancelled()],
        "told_itself": told == [error],
        "no_context": [
            hasattr(error, name) for name in ("is_active", "time_remaining", "add_callback")
        ],
    }

"""What grpcio keeps private and libraries read all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from grpc import _channel

from tests.endings import at_end

from .transcript import Transcript, plain
from .world import KINDS, SERVICE, World, answering, asking, begin, finish, handler, scenario, wait

_FIELDS = ("code", "details", "client", "aborted", "trailing_metadata", "statused")
_MORE = ("initial_metadata_allowed", "rpc_errors")


def _state(context: Any) -> list[Any]:
    return [plain(getattr(context._state, name)) for name in (*_FIELDS, *_MORE)]


def _seen(w: World, kind: str, prologue: Callable[[Any], Any]) -> list[Any]:
    """What an interceptor finds in the context before a handler and after it."""
    seen: list[Any] = []

    def behaviour(request: Any, context: Any) -> Any:
        seen.append(_state(context))
        try:
            yield from answering(kind, prologue)(request, context)
        finally:
            seen.append(_state(context))

    def unary(request: Any, context: Any) -> Any:
        seen.append(_state(context))
        try:
            return answering(kind, prologue)(request, context)
        finally:
            seen.append(_state(context))

    told = finish(kind, w.method(kind, behaviour if kind.endswith("stream") else unary))
    return [seen, told]


@scenario
def private_state_of_a_context(w: World) -> Transcript:
    def chooses(context: Any) -> None:
        context.set_code(grpc.StatusCode.DATA_LOSS)
        context.set_details("lost")
        context.set_trailing_metadata((("a", "b"),))

    def aborts(context: Any) -> None:
        context.abort(grpc.StatusCode.NOT_FOUND, "nothing")

    def sends_headers(context: Any) -> None:
        context.send_initial_metadata((("a", "b"),))

    prologues = (lambda context: None, chooses, aborts, sends_headers)
    return {kind: [_seen(w, kind, prologue) for prologue in prologues] for kind in KINDS}


@scenario
def private_state_is_set(w: World) -> Transcript:
    def sets(context: Any) -> None:
        context._state.code = grpc.StatusCode.DATA_LOSS
        context._state.details = b"lost"
        context._state.trailing_metadata = (("a", "b"),)

    return {kind: _seen(w, kind, sets) for kind in KINDS}


@scenario
def private_state_when_the_client_cancels(w: World) -> Transcript:
    story: Transcript = {}
    for kind in KINDS:
        entered, ended, told = w.gate(), w.gate(), w.gate()
        seen: list[Any] = []

        def waits(
            context: Any, entered: Any = entered, ended: Any = ended, told: Any = told,
            seen: list[Any] = seen,
        ) -> None:  # fmt: skip
            at_end(context, ended.set)
            seen.append(context._state.client)
            entered.set()
            wait(ended)
            seen.append(context._state.client)
            told.set()

        call = begin(kind, w.method(kind, answering(kind, waits)))
        wait(entered)
        call.cancel()
        wait(told)
        story[kind] = seen
    return story


@scenario
def private_event_of_a_context(w: World) -> Transcript:
    seen: list[Any] = []

    def looks(context: Any) -> None:
        event = context._rpc_event
        metadata = [[key, value] for key, value in event.invocation_metadata if key == "a"]
        left = event.call_details.deadline - context.time_remaining()
        seen.append([event.call_details.method, metadata, left > 0])

    for kind in KINDS:
        finish(kind, w.method(kind, answering(kind, looks)), metadata=(("a", "b"),), timeout=10)
    return {"seen": seen}


@scenario
def private_classes_of_errors(w: World) -> Transcript:
    """Of what programs write in `except` and isinstance()."""
    story: Transcript = {}
    names = ("_InactiveRpcError", "_Rendezvous", "_MultiThreadedRendezvous")
    for kind in KINDS:

        def refuses(context: Any) -> None:
            context.set_trailing_metadata((("a", "b"),))
            context.abort(grpc.StatusCode.NOT_FOUND, "nothing")

        method = w.method(kind, answering(kind, refuses))
        try:
            list(method(asking(kind)))
        except grpc.RpcError as error:
            caught: Any = error
        state = caught._state
        story[kind] = [
            [isinstance(caught, getattr(_channel, name)) for name in names],
            [plain(state.code), state.details, [tuple(pair) for pair in state.trailing_metadata]],
            bool(state.debug_error_string),
            isinstance(begin(kind, method), _channel._MultiThreadedRendezvous),
        ]
    return story


@scenario
def private_handle_of_a_registered_method(w: World) -> Transcript:
    address = w.serve(
        {"Do": handler("unary_unary", answering("unary_unary", lambda context: None))}
    )
    channel = w.channel(address)
    name = f"/{SERVICE}/Do"
    handle = channel._get_registered_call_handle(name)
    return {
        "truth": bool(handle),
        "answer": channel.unary_unary(name, None, None, handle)(b""),
        "flag": channel.unary_unary(name, _registered_method=True)(b""),
    }

"""ServicerContext: every method, in the order and at the times a handler may call them."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from operator import methodcaller
from typing import Any

import grpc

from tests.endings import at_end

from .transcript import Transcript, drained, ended, failure, kinds, outcome, plain
from .world import (
    KINDS,
    SERVICE,
    World,
    answering,
    begin,
    finish,
    handler,
    scenario,
    scenario_of,
    wait,
)


def _call(w: World, prologue: Callable[[Any], Any], **named: Any) -> Any:
    """One unary call whose handler does prologue(context); its answer and its ending."""

    def respond(request: bytes, context: Any) -> bytes:
        prologue(context)
        return b"ok"

    call = w.method("unary_unary", respond).future(b"", **named)
    return [outcome(call.result), ended(call)]


@scenario
def context_before_anything_was_set(w: World) -> Transcript:
    seen: Transcript = {}

    def look(context: Any) -> None:
        seen.update(
            kinds=kinds(context),
            active=context.is_active(),
            code=plain(context.code()),
            details=plain(context.details()),
            trailing=plain(context.trailing_metadata()),
            added=context.add_callback(lambda: None),
            identities=plain(context.peer_identities()),
            identity_key=context.peer_identity_key(),
            auth=plain(context.auth_context()),
            unlimited=context.time_remaining() > 1e8,
        )

    return {"call": _call(w, look), "seen": seen}


@scenario
def context_knows_its_peer(w: World) -> Transcript:
    seen: list[Any] = []
    _call(w, lambda context: seen.append(context.peer()))
    return {"type": type(seen[0]).__name__, "scheme": seen[0].split(":")[0]}


@scenario
def context_reads_back_what_was_set(w: World) -> Transcript:
    seen: Transcript = {}

    def look(context: Any) -> None:
        context.set_code(grpc.StatusCode.OK)
        context.set_details("gr\u00fc\u00dfe")
        context.set_trailing_metadata((("k", "v"), ("k-bin", b"\x00\xff")))
        seen.update(
            code=plain(context.code()),
            details=plain(context.details()),
            trailing=plain(context.trailing_metadata()),
        )

    return {"call": _call(w, look), "seen": seen}


@scenario
def context_codes_of_every_value(w: World) -> Transcript:
    story: Transcript = {}
    for code in grpc.StatusCode:
        story[code.name] = _call(w, methodcaller("set_code", code))
        w.clear()
    for odd in (0, 5, 99, "NOT_FOUND", None, 3.5):
        w.clear()
        story[repr(odd)] = _call(w, methodcaller("set_code", odd))
    return story


def _set_both(details: Any, context: Any) -> None:
    context.set_code(grpc.StatusCode.INTERNAL)
    context.set_details(details)


@scenario
def context_details_of_every_sort(w: World) -> Transcript:
    story: Transcript = {}

    for details in (
        "",
        "plain",
        "gr\u00fc\u00dfe \u2603 \U0001f600",
        "a\nb\tc",
        "100%",
        "%41",
        b"bytes",
    ):
        story[repr(details)] = _call(w, partial(_set_both, details))
    for odd in (7, None):
        story[repr(odd)] = _call(w, partial(_set_both, odd))
    long = _call(w, partial(_set_both, "x" * 4000))
    story["long"] = [long[1]["code"], len(long[1]["details"])]
    return story


@scenario
def context_details_without_a_code(w: World) -> Transcript:
    return {"call": _call(w, lambda context: context.set_details("all is well"))}


@scenario
def context_code_with_a_response_in_every_kind(w: World) -> Transcript:
    def prologue(context: Any) -> None:
        context.set_code(grpc.StatusCode.CANCELLED)
        context.set_details("by the handler")

    return {kind: finish(kind, w.method(kind, answering(kind, prologue))) for kind in KINDS}


@scenario
def context_aborts_in_every_kind(w: World) -> Transcript:
    def prologue(context: Any) -> None:
        context.send_initial_metadata((("i", "1"),))
        context.set_trailing_metadata((("t", "1"),))
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "gr\u00fc\u00dfe")

    return {
        "calls": {kind: finish(kind, w.method(kind, answering(kind, prologue))) for kind in KINDS},
        "log": w.logged(),
    }


@scenario
def context_abort_raises_through_the_handler(w: World) -> Transcript:
    seen: list[Any] = []

    def look(context: Any) -> None:
        try:
            context.abort(grpc.StatusCode.NOT_FOUND, "gone")
        except BaseException as error:
            seen.append(
                [type(error).__name__, str(error), plain(context.code()), context.details()]
            )
            raise

    def swallow(context: Any) -> None:
        try:
            context.abort(grpc.StatusCode.NOT_FOUND, "gone")
        except Exception:
            seen.append("swallowed")

    def replace(context: Any) -> None:
        try:
            context.abort(grpc.StatusCode.NOT_FOUND, "gone")
        except Exception as error:
            raise RuntimeError("other") from error

    return {
        "raised": _call(w, look),
        "swallowed": _call(w, swallow),
        "replaced": _call(w, replace),
        "seen": seen,
        "log": w.logged(),
    }


@scenario
def context_abort_with_odd_arguments(w: World) -> Transcript:
    story: Transcript = {}
    for code in (grpc.StatusCode.OK, 5, 99, "NOT_FOUND", None):
        story[str(code)] = _call(w, methodcaller("abort", code, "text"))
    for details in (None, 7, b"bytes"):
        story[repr(details)] = _call(w, methodcaller("abort", grpc.StatusCode.ABORTED, details))
    story["twice"] = _call(w, _abort_twice)
    story["log"] = w.logged()
    return story


def _abort_twice(context: Any) -> None:
    try:
        context.abort(grpc.StatusCode.ABORTED, "first")
    except Exception:
        context.abort(grpc.StatusCode.DATA_LOSS, "second")


@dataclass
class _Status(grpc.Status):
    code: grpc.StatusCode
    details: str
    trailing_metadata: Any


@scenario
def context_aborts_with_a_status(w: World) -> Transcript:
    status = _Status(grpc.StatusCode.UNAUTHENTICATED, "who?", (("t", "1"), ("t-bin", b"\x01")))
    fine = _Status(grpc.StatusCode.OK, "fine", None)
    return {
        "refused": _call(w, lambda context: context.abort_with_status(status)),
        "ok": _call(w, lambda context: context.abort_with_status(fine)),
        "log": w.logged(),
    }


@scenario
def context_sends_initial_metadata_once(w: World) -> Transcript:
    seen: list[Any] = []

    def twice(context: Any) -> None:
        context.send_initial_metadata((("a", "1"),))
        seen.append(outcome(context.send_initial_metadata, (("b", "2"),)))

    def late(request: bytes, context: Any) -> Iterator[bytes]:
        yield b"1"
        seen.append(outcome(context.send_initial_metadata, (("c", "3"),)))

    call = w.method("unary_stream", late)(b"")
    return {
        "twice": _call(w, twice),
        "late": [drained(call), ended(call)],
        "empty": _call(w, lambda context: context.send_initial_metadata(())),
        "none": _call(w, lambda context: context.send_initial_metadata(None)),
        "seen": seen,
    }


@scenario_of(*KINDS)
def context_is_told_of_the_end(w: World, kind: str) -> Any:
    order: list[str] = []
    kept: list[Any] = []
    over = w.gate()

    def prologue(context: Any) -> None:
        kept.append(context)
        at_end(context, lambda: order.append("1"))
        at_end(context, lambda: order.append(f"active {context.is_active()}"))
        at_end(context, over.set)

    finish(kind, w.method(kind, answering(kind, prologue)))
    wait(over)
    context = kept[0]
    return [order, context.is_active(), context.add_callback(lambda: None)]


@scenario
def context_is_not_told_of_an_end_that_came_before(w: World) -> Transcript:
    """add_callback() that comes too late returns False, on a stopped server, too."""

    def story(end: Callable[[Any, Any, threading.Event], None]) -> Any:
        entered, asked, ran = w.gate(), w.gate(), w.gate()
        added: list[bool] = []

        def linger(request: bytes, context: Any) -> bytes:
            entered.set()
            pause = threading.Event()
            while context.is_active():
                pause.wait(0.002)
            added.append(context.add_callback(ran.set))
            asked.set()
            return b""

        address = w.address()
        server = w.server({"Do": handler("unary_unary", linger)})
        server.add_insecure_port(address)
        server.start()
        method = w.channel(address).unary_unary(f"/{SERVICE}/Do")
        end(server, method, entered)
        wait(asked)
        return [added, ran.is_set()]

    def cancel(server: Any, method: Any, entered: threading.Event) -> None:
        call = method.future(b"")
        wait(entered)
        call.cancel()

    def stop(server: Any, method: Any, entered: threading.Event) -> None:
        call = method.future(b"")
        wait(entered)
        server.stop(0)
        call.exception()

    def be_late(server: Any, method: Any, entered: threading.Event) -> None:
        timeout = 0.05
        while not entered.is_set():  # a busy machine may not get there in time
            method.future(b"", timeout=timeout).exception()
            timeout *= 2

    return {
        "cancelled": story(cancel),
        "too late": story(be_late),
        "stopped": story(stop),
    }


@scenario
def context_callback_raises(w: World) -> Transcript:
    over = w.gate()

    def fail() -> None:
        raise KeyError("callback")

    def prologue(context: Any) -> None:
        at_end(context, fail)
        at_end(context, over.set)

    call = _call(w, prologue)
    wait(over)
    return {"call": call, "log": w.logged()}


@scenario_of(*KINDS)
def context_cancels_its_own_call(w: World, kind: str) -> Any:
    over, looked = w.gate(), w.gate()
    seen: list[Any] = []

    def prologue(context: Any) -> None:
        at_end(context, over.set)
        seen.append(context.cancel())
        wait(over)
        seen.append(context.is_active())
        looked.set()

    call = finish(kind, w.method(kind, answering(kind, prologue)))
    wait(looked)
    return [call, seen]


@scenario
def context_compression_changes_nothing_on_the_way(w: World) -> Transcript:
    def prologue(context: Any) -> None:
        context.set_compression(grpc.Compression.Gzip)
        context.disable_next_message_compression()

    def late(context: Any) -> None:
        context.send_initial_metadata((("a", "1"),))
        context.set_compression(grpc.Compression.Deflate)

    return {
        kind: [
            finish(kind, w.method(kind, answering(kind, prologue))),
            finish(kind, w.method(kind, answering(kind, late))),
        ]
        for kind in KINDS
    }


_variable: contextvars.ContextVar[str] = contextvars.ContextVar("parity", default="unset")


@scenario
def context_variables_belong_to_one_call(w: World) -> Transcript:
    seen: list[str] = []

    def look(request: bytes, context: Any) -> Iterator[bytes]:
        seen.append(_variable.get())
        _variable.set(request.decode())
        yield b""
        seen.append(_variable.get())

    method = w.method("unary_stream", look)
    token = _variable.set("client's")
    try:
        for name in (b"a", b"b", b"c"):
            list(method(name))
    finally:
        _variable.reset(token)
    return {"seen": seen}


@scenario
def context_survives_its_call(w: World) -> Transcript:
    kept: list[Any] = []
    over = w.gate()

    def keep(context: Any) -> None:
        kept.append(context)
        at_end(context, over.set)

    _call(w, keep)
    wait(over)
    context = kept[0]
    return {
        "active": context.is_active(),
        "set_code": outcome(context.set_code, grpc.StatusCode.ABORTED),
        "set_details": outcome(context.set_details, "late"),
        "set_trailing": outcome(context.set_trailing_metadata, (("a", "b"),)),
        "metadata": outcome(lambda: type(context.invocation_metadata()).__name__),
        "initial": outcome(context.send_initial_metadata, (("a", "b"),)),
        "initial again": outcome(context.send_initial_metadata, (("a", "b"),)),
        "cancel": outcome(context.cancel),
        "abort": outcome(context.abort, grpc.StatusCode.ABORTED, "late"),
    }


@scenario_of(*KINDS)
def handler_of_a_cancelled_call_goes_on(w: World, kind: str) -> Any:
    """What the handler returns or raises after the cancellation goes nowhere and is not logged."""
    entered, cancelled, returned = w.gate(), w.gate(), w.gate()
    seen: list[Any] = []

    def prologue(context: Any) -> None:
        at_end(context, cancelled.set)
        entered.set()
        wait(cancelled)
        try:
            context.abort(grpc.StatusCode.ABORTED, "too late")
        except Exception as error:
            seen.append(failure(error)["raised"])
        returned.set()

    call = begin(kind, w.method(kind, answering(kind, prologue)))
    wait(entered)
    call.cancel()
    wait(returned)
    return [seen, ended(call), w.logged()]

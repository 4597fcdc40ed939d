"""Call and Future: every method, before and after the end, after failure and cancellation."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc

from tests.endings import at_end

from .transcript import Transcript, drained, ended, outcome, plain, shown
from .world import KINDS, World, answering, asking, begin, scenario, scenario_of, wait


def _state(call: Any) -> Transcript:
    return {
        "done": call.done(),
        "running": call.running(),
        "cancelled": call.cancelled(),
        "active": call.is_active(),
    }


class _Held:
    """A method of some kind whose handler waits at a gate."""

    def __init__(self, w: World, kind: str, prologue: Any = None) -> None:
        self.gate, self.entered, self.left = w.gate(), w.gate(), w.gate()
        self.seen: list[Any] = []

        def hold(context: Any) -> None:
            at_end(context, self.left.set)
            self.entered.set()
            wait(self.gate)
            if prologue is not None:
                prologue(context)

        self.method = w.method(kind, answering(kind, hold))


@scenario_of(*KINDS)
def life_of_a_call_that_succeeds(w: World, kind: str) -> Any:
    held = _Held(w, kind)
    over = threading.Event()
    call = begin(kind, held.method, timeout=60)
    told = call.add_callback(over.set)
    wait(held.entered)
    story: Transcript = {
        "before": _state(call),
        "repr": shown(call),
        "added": told,
        "left": 50 < call.time_remaining() <= 60,
        "result": outcome(call.result, timeout=0.01),
        "exception": outcome(call.exception, timeout=0.01),
        "traceback": outcome(call.traceback, timeout=0.01),
        "result_now": outcome(call.result, timeout=0),
    }
    held.gate.set()
    if kind.endswith("stream"):
        story["responses"] = drained(call)
    wait(over)
    story |= {
        "after": _state(call),
        "added_late": call.add_callback(over.set),
        "exception_after": plain(call.exception()),
        "exception_timeout": plain(call.exception(timeout=0)),
        "traceback_after": plain(call.traceback(timeout=1)),
        "cancel_after": call.cancel(),
        "cancelled_after": call.cancelled(),
        "debug": call.debug_error_string(),
        "ended": ended(call),
    }
    if kind.endswith("unary"):
        story["result_after"] = [call.result(), call.result(timeout=0)]
    return story


@scenario
def life_of_a_call_that_fails(w: World) -> Transcript:
    def refuse(context: Any) -> None:
        context.abort(grpc.StatusCode.DATA_LOSS, "lost")

    story: Transcript = {}
    for kind in KINDS:
        call = begin(kind, w.method(kind, answering(kind, refuse)))
        error = call.exception()
        story[kind] = {
            "is_itself": error is call,
            "result": outcome(call.result),
            "traceback": call.traceback() is not None,
            "state": _state(call),
            "ended": ended(call),
            "repr": shown(call),
            "debug": "lost" in call.debug_error_string(),
            "cancel": call.cancel(),
            "iterated": outcome(next, call) if kind.endswith("stream") else None,
            "and_again": outcome(next, call) if kind.endswith("stream") else None,
            "no_deadline": call.time_remaining(),
        }
    return story


@scenario_of(*KINDS)
def life_of_a_call_that_is_cancelled(w: World, kind: str) -> Any:
    held = _Held(w, kind)
    call = begin(kind, held.method)
    over = threading.Event()
    at_end(call, over.set)
    wait(held.entered)
    story: Transcript = {"cancel": call.cancel(), "again": call.cancel(), "state": _state(call)}
    wait(over)
    wait(held.left)
    held.gate.set()
    return story | {
        "result": outcome(call.result),
        "exception": outcome(call.exception),
        "traceback": outcome(call.traceback),
        "ended": ended(call),
        "repr": shown(call),
        "iterated": outcome(next, call) if kind.endswith("stream") else None,
    }


@scenario_of(*KINDS)
def cancelling_reaches_the_handler(w: World, kind: str) -> Any:
    seen: list[Any] = []
    looked = w.gate()

    def look(context: Any) -> None:
        seen.append(context.is_active())
        seen.append(outcome(context.send_initial_metadata, (("late", "1"),)))
        seen.append(context.add_callback(lambda: None))
        looked.set()

    held = _Held(w, kind, look)
    call = begin(kind, held.method)
    wait(held.entered)
    call.cancel()
    wait(held.left)
    held.gate.set()
    wait(looked)
    return {"seen": seen, "log": w.logged()}


@scenario
def cancelling_between_responses(w: World) -> Transcript:
    closed = w.gate()

    def count(request: bytes, context: Any) -> Iterator[bytes]:
        at_end(context, closed.set)
        yield b"1"
        yield b"2"
        wait(closed)
        yield b"3"

    call = w.method("unary_stream", count)(b"")
    heard = [next(call), next(call)]
    call.cancel()
    rest = drained(call)
    wait(closed)
    return {"heard": heard, "rest": rest, "ended": ended(call), "result": outcome(call.result)}


@scenario
def cancelling_ends_the_handlers_requests(w: World) -> Transcript:
    reading, over, looked = w.gate(), w.gate(), w.gate()
    seen: list[Any] = []

    def read(requests: Iterator[bytes], context: Any) -> bytes:
        at_end(context, over.set)
        seen.append(next(requests))
        reading.set()
        # grpcio ends the iteration quietly or with an error, whichever of two
        # events comes first; from the end of the call on it is an error.
        drained(requests)
        wait(over)
        seen.append([outcome(next, requests), context.is_active()])
        looked.set()
        return b""

    hold = w.gate()

    def ask() -> Iterator[bytes]:
        yield b"first"
        wait(hold)

    call = w.method("stream_unary", read).future(ask())
    wait(reading)
    call.cancel()
    wait(looked)
    return {"seen": seen, "log": w.logged()}


@scenario_of(*KINDS)
def done_callbacks_run_in_order_and_once(w: World, kind: str) -> Any:
    held = _Held(w, kind)
    call = begin(kind, held.method)
    wait(held.entered)
    order: list[str] = []
    over = threading.Event()
    call.add_done_callback(lambda done: order.append("future 1"))
    at_end(call, lambda: order.append("call 1"))
    call.add_done_callback(lambda done: order.append(f"itself {done is call}"))
    call.add_done_callback(lambda done: order.append(f"done {done.done()}"))
    at_end(call, over.set)
    held.gate.set()
    if kind.endswith("stream"):
        list(call)
    wait(over)
    call.add_done_callback(lambda done: order.append("late"))
    return order


@scenario
def done_callbacks_that_raise(w: World) -> Transcript:
    held = _Held(w, "unary_unary")
    call = held.method.future(b"")
    wait(held.entered)
    order: list[str] = []
    over = threading.Event()

    def fail(done: Any) -> None:
        order.append("fail")
        raise KeyError("callback")

    call.add_done_callback(fail)
    call.add_done_callback(lambda done: over.set())
    held.gate.set()
    wait(over)
    late = outcome(call.add_done_callback, fail)
    levels = [level for level, _ in w.logged()]
    words = all("Exception in callback" in text for _, text in w.logged())
    return {"order": order, "late": late, "levels": levels, "words": words, "ok": call.result()}


@scenario
def done_callbacks_see_the_cancellation(w: World) -> Transcript:
    held = _Held(w, "unary_unary")
    call = held.method.future(b"")
    wait(held.entered)
    seen: list[Any] = []
    over = threading.Event()

    def look(done: Any) -> None:
        seen.append([done.cancelled(), done.done(), plain(done.code())])
        over.set()

    call.add_done_callback(look)
    call.cancel()
    wait(over)
    return {"seen": seen}


@scenario_of(*KINDS[1:])
def metadata_comes_before_the_end(w: World, kind: str) -> Any:
    """But not for a unary call, of which grpcio hands out nothing before the end."""
    gate = w.gate()

    def prologue(context: Any) -> None:
        context.send_initial_metadata((("early", "1"),))
        wait(gate)

    call = begin(kind, w.method(kind, answering(kind, prologue)))
    early = [plain(call.initial_metadata()), call.done()]
    gate.set()
    if kind.endswith("stream"):
        list(call)
    return {"early": early, "ended": ended(call)}


@scenario_of("code", "details", "trailing_metadata", "debug_error_string")
def end_is_waited_for_by_its_questions(w: World, question: str) -> Any:
    held = _Held(w, "unary_unary", lambda context: context.set_details("said"))
    call = held.method.future(b"")
    wait(held.entered)
    answers: list[Any] = []
    asker = threading.Thread(target=lambda: answers.append(plain(getattr(call, question)())))
    asker.start()
    before = list(answers)
    held.gate.set()
    asker.join()
    return {"before": before, "after": answers}


@scenario
def response_stream_without_reader_has_no_result(w: World) -> Transcript:
    call = w.method("unary_stream", lambda request, context: iter([b"1", b"2"]))(b"")
    first = next(call)
    early = outcome(call.result, timeout=0.01)
    rest = list(call)
    return {"first": first, "early": early, "rest": rest, "late": outcome(call.result)}


@scenario
def forgotten_call_is_cancelled(w: World) -> Transcript:
    story: Transcript = {}
    for kind in ("unary_stream", "stream_stream"):
        held = _Held(w, kind)
        call = held.method(asking(kind))
        wait(held.entered)
        del call
        wait(held.left)
        held.gate.set()
        story[kind] = "the handler's call ended"
    return story


@scenario
def calls_in_parallel_keep_their_answers(w: World) -> Transcript:
    method = w.method("unary_unary", lambda request, context: request * 2)
    calls = [method.future(str(number).encode()) for number in range(50)]
    return {"answers": [call.result() for call in reversed(calls)]}

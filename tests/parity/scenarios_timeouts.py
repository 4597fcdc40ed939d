"""Times to wait of every sort: endless, past, no number, no time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import grpc

from .transcript import Transcript, error_of, outcome, plain
from .world import (
    KINDS,
    PATIENCE,
    SERVICE,
    World,
    answering,
    asking,
    begin,
    finish,
    handler,
    scenario,
    wait,
)

INFINITE = float("inf")
NAN = float("nan")
ENDLESS = (INFINITE, 1e300, 1e18, 3e9, 10**30)
PAST = (-INFINITE, -1e300, -1)
NO_TIME: tuple[Any, ...] = (Decimal(5), "5", b"5", "x", (), 5j, object())
OTHERS = (True, Fraction(500), 10)

WAITS = ("result", "exception", "traceback")


def raised(act: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """What it returned, or the kind of what it raised: the words are Python's here and there."""
    error = error_of(lambda: act(*args, **named))
    return "nothing" if error is None else type(error).__name__


def _method(w: World, kind: str) -> Any:
    return w.method(kind, answering(kind, lambda context: None))


def _call(kind: str, method: Any, timeout: Any) -> Any:
    answer = method(asking(kind), timeout=timeout)
    return list(answer) if kind.endswith("stream") else answer


@scenario
def timeouts_of_calls(w: World) -> Transcript:
    story: Transcript = {}
    for kind in KINDS:
        method = _method(w, kind)
        story[kind] = {
            "over": [finish(kind, method, timeout=value) for value in (*PAST, NAN)],
            "begun": [plain(begin(kind, method, timeout=value).code()) for value in (*PAST, NAN)],
            "no_time": [raised(_call, kind, method, value) for value in NO_TIME],
            "enough": [finish(kind, method, timeout=value) for value in OTHERS],
        }
        if kind.endswith("unary"):
            story[kind]["with_call"] = [
                outcome(method.with_call, asking(kind), value) for value in (-INFINITE, NAN)
            ]
    return story


@scenario
def timeouts_of_calls_beyond_all_time(w: World) -> Transcript:
    story: Transcript = {}
    for kind in KINDS:
        method = _method(w, kind)
        story[kind] = {
            str(value): finish(kind, method, timeout=value)
            for value in (None, INFINITE, 1e300, 10**30)
        }
    return story


def _holding(w: World) -> tuple[threading.Event, Any]:
    gate = w.gate()

    def hold(request: bytes, context: Any) -> bytes:
        wait(gate)
        return b"held"

    address = w.serve({"Do": handler("unary_unary", hold)}, pool=w.pool(20))
    return gate, w.channel(address).unary_unary(f"/{SERVICE}/Do")


@scenario
def timeouts_of_a_futures_waits(w: World) -> Transcript:
    gate, method = _holding(w)
    call = method.future(b"")
    story: Transcript = {}
    for name in WAITS:
        ask = getattr(call, name)
        story[name] = {
            "late": [raised(ask, timeout=value) for value in (*PAST, 0, 0.01, False)],
            "no_time": [raised(ask, timeout=value) for value in NO_TIME],
        }
    told: list[Any] = []

    def wait_long(value: float) -> None:
        told.append(outcome(call.result, timeout=value))

    waiting = [
        threading.Thread(target=wait_long, args=(value,), daemon=True) for value in (*ENDLESS, NAN)
    ]
    for thread in waiting:
        thread.start()
    gate.set()
    for thread in waiting:
        thread.join(PATIENCE)
    story["endless"] = told
    for name in WAITS:
        ask = getattr(call, name)
        values = (*ENDLESS, *PAST, NAN, 0, *OTHERS)
        story[f"{name} afterwards"] = [outcome(ask, timeout=value) for value in values]
        # grpcio sees only while it waits that a complex number is none.
        no_time = [value for value in NO_TIME if value != 5j]
        story[f"{name} no time"] = [raised(ask, timeout=value) for value in no_time]
    return story


@scenario
def timeouts_of_an_error(w: World) -> Transcript:
    error: Any = error_of(lambda: _method(w, "unary_unary")(b"", timeout=-1))
    return {
        name: [raised(getattr(error, name), timeout=value) for value in (INFINITE, NAN, "x")]
        for name in WAITS
    }


@scenario
def timeouts_of_a_servers_waits(w: World) -> Transcript:
    server = w.server({})
    server.add_insecure_port(w.address())
    server.start()
    ask = server.wait_for_termination
    story: Transcript = {
        "late": [ask(timeout=value) for value in (*PAST, 0, 0.01, False)],
        "no_time": [raised(ask, timeout=value) for value in NO_TIME],
    }
    told: list[Any] = []
    waiting = [
        threading.Thread(target=lambda value=value: told.append(ask(value)), daemon=True)
        for value in (*ENDLESS, NAN)
    ]
    for thread in waiting:
        thread.start()
    server.stop(None)
    for thread in waiting:
        thread.join(PATIENCE)
    return {**story, "endless": told, "stopped": [ask(value) for value in (*ENDLESS, NAN, -1)]}


@scenario
def timeouts_of_a_graceful_stop(w: World) -> Transcript:
    story: Transcript = {}
    for value in (*PAST, NAN, 0, 0.05, False):
        entered, gate = w.gate(), w.gate()

        def hold(
            request: bytes,
            context: Any,
            entered: threading.Event = entered,
            gate: threading.Event = gate,
        ) -> bytes:
            entered.set()
            wait(gate)
            return b"held"

        address = w.address()
        server = w.server({"Do": handler("unary_unary", hold)})
        server.add_insecure_port(address)
        server.start()
        call = w.channel(address).unary_unary(f"/{SERVICE}/Do").future(b"")
        wait(entered)
        stopped = server.stop(value)
        code = plain(call.code())
        gate.set()
        story[str(value)] = [code, stopped.wait(PATIENCE)]
    return story


@scenario
def timeouts_of_an_endless_grace(w: World) -> Transcript:
    story: Transcript = {}
    for value in ENDLESS:
        entered, gate = w.gate(), w.gate()

        def hold(
            request: bytes,
            context: Any,
            entered: threading.Event = entered,
            gate: threading.Event = gate,
        ) -> bytes:
            entered.set()
            wait(gate)
            return b"held"

        address = w.address()
        server = w.server({"Do": handler("unary_unary", hold)})
        server.add_insecure_port(address)
        server.start()
        call = w.channel(address).unary_unary(f"/{SERVICE}/Do").future(b"")
        wait(entered)
        stopped = server.stop(value)
        early = [stopped.is_set(), call.done()]
        gate.set()
        story[str(value)] = [early, call.result(), stopped.wait(PATIENCE)]
    return story


@scenario
def timeouts_of_a_channels_readiness(w: World) -> Transcript:
    address = w.serve({})
    ready = grpc.channel_ready_future(w.channel(address))
    ready.result(timeout=PATIENCE)
    never = grpc.channel_ready_future(w.channel(w.address()))
    return {
        "ready": [outcome(ready.result, timeout=value) for value in (None, 1, 0)],
        "never": [raised(never.result, timeout=value) for value in (*PAST, 0)],
        "no_time": [raised(never.result, timeout=value) for value in NO_TIME],
    }

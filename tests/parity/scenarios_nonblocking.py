"""Handlers with experimental_non_blocking and experimental_thread_pool, as grpcio has them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any, TypeAlias

import grpc

from tests.endings import at_end

from .transcript import Transcript, drained, ended, failure, outcome, plain
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

OnNext: TypeAlias = Callable[[Any], None]
Answering: TypeAlias = Callable[[Any, Any, OnNext], object]

STREAMS = ("unary_stream", "stream_stream")


def non_blocking(behaviour: Any, pool: Any = None) -> Any:
    behaviour.experimental_non_blocking = True
    if pool is not None:
        behaviour.experimental_thread_pool = pool
    return behaviour


class Open:
    """Calls whose handler has returned, or is about to."""

    def __init__(self, w: World, kind: str = "unary_stream", **codecs: Any) -> None:
        self.context: Any = None
        self.on_next: OnNext = print
        self.called_back: list[str] = []
        self._came = w.gate()
        self._called_back = w.gate()
        self._method = w.method(kind, non_blocking(self._behave), **codecs)
        self._kind = kind

    # A function and no method: grpcio reads the attributes of what it calls.
    @property
    def _behave(self) -> Answering:
        def behave(request: Any, context: Any, on_next: OnNext) -> None:
            self.context, self.on_next = context, on_next
            at_end(context, self._hear)
            self._came.set()

        return behave

    def _hear(self) -> None:
        self.called_back.append(plain(self.context.is_active()))
        self._called_back.set()

    def begin(self, **named: Any) -> Any:
        call = self._method(asking(self._kind), **named)
        wait(self._came)
        return call

    def hear(self) -> list[str]:
        wait(self._called_back)
        return self.called_back


def told(w: World, kind: str, behave: Answering, **codecs: Any) -> Any:
    """The call that a non-blocking handler serves, and what was logged."""
    return [finish(kind, w.method(kind, non_blocking(behave), **codecs)), w.logged()]


@scenario_of(*STREAMS)
def nonblocking_answers_before_it_returns(w: World, kind: str) -> Transcript:
    said: list[Any] = []
    done = w.gate()

    def behave(request: Any, context: Any, on_next: OnNext) -> int:
        for response in (b"one", b"two", None):
            said.append(outcome(on_next, response))
        done.set()
        return 7

    call = told(w, kind, behave)
    wait(done)
    return {"call": call, "said": said}


@scenario_of(*STREAMS)
def nonblocking_answers_after_it_returned(w: World, kind: str) -> Transcript:
    calls = Open(w, kind)
    call = calls.begin()
    active = calls.context.is_active()
    said = [outcome(calls.on_next, response) for response in (b"one", b"two", None)]
    return {
        "active": active,
        "responses": drained(call),
        "end": ended(call),
        "said": said,
        "called_back": calls.hear(),
        "left": calls.context.is_active(),
    }


@scenario_of(*KINDS)
def nonblocking_is_of_response_streams_only(w: World, kind: str) -> Transcript:
    arguments: list[int] = []

    def behave(*given: Any) -> Any:
        arguments.append(len(given))
        if len(given) == 3:
            return given[2](None)
        return answering(kind, lambda context: None)(*given)

    return {"call": told(w, kind, behave), "arguments": arguments}


@scenario
def nonblocking_is_asked_for_each_call(w: World) -> Transcript:
    def behave(request: Any, context: Any, on_next: OnNext | None = None) -> Any:
        if on_next is None:
            return iter([b"blocking"])
        on_next(b"not blocking")
        return on_next(None)

    method = w.method("unary_stream", behave)
    seen = []
    for attribute in (False, True, 0, "yes"):
        behave.experimental_non_blocking = attribute  # type: ignore[attr-defined]
        seen.append(drained(method(b"")))
    return {"seen": seen}


@scenario_of(*STREAMS)
def nonblocking_requests_are_read_later(w: World, kind: str) -> Transcript:
    read: list[Any] = []

    def behave(request: Any, context: Any, on_next: OnNext) -> None:
        def read_on() -> None:
            for each in request if kind.startswith("stream") else [request]:
                read.append(each)
                on_next(each)
            on_next(None)

        threading.Thread(target=read_on, daemon=True).start()

    method = w.method(kind, non_blocking(behave))
    return {"responses": finish(kind, method, [b"1", b"2", b"3"]), "read": read}


@scenario_of(*STREAMS)
def nonblocking_handler_raises(w: World, kind: str) -> Transcript:
    def raises(request: Any, context: Any, on_next: OnNext) -> None:
        on_next(b"one")
        raise RuntimeError("lost")

    def raises_first(request: Any, context: Any, on_next: OnNext) -> None:
        context.set_code(grpc.StatusCode.DATA_LOSS)
        raise RuntimeError("lost")

    return {"late": told(w, kind, raises), "at_once": told(w, kind, raises_first)}


@scenario_of(*STREAMS)
def nonblocking_handler_aborts(w: World, kind: str) -> Transcript:
    def aborts(request: Any, context: Any, on_next: OnNext) -> None:
        on_next(b"one")
        context.set_trailing_metadata((("k", "v"),))
        context.abort(grpc.StatusCode.ABORTED, "no")

    class Status(grpc.Status):
        code = grpc.StatusCode.NOT_FOUND
        details = "nowhere"
        trailing_metadata = (("t", "1"),)

    def aborts_with_status(request: Any, context: Any, on_next: OnNext) -> None:
        context.abort_with_status(Status())

    return {"abort": told(w, kind, aborts), "status": told(w, kind, aborts_with_status)}


@scenario
def nonblocking_context_is_used_later(w: World) -> Transcript:
    calls = Open(w)
    call = calls.begin(timeout=PATIENCE)
    context = calls.context
    story = {
        "headers": outcome(context.send_initial_metadata, (("first", "1"),)),
        "again": outcome(context.send_initial_metadata, (("first", "1"),)),
        "message": outcome(calls.on_next, b"one"),
        "remaining": context.time_remaining() > 0,
        "abort": outcome(context.abort, grpc.StatusCode.ABORTED, "later"),
        "still_active": context.is_active(),
        "more": outcome(calls.on_next, b"two"),
    }
    context.set_trailing_metadata((("last", "2"),))
    return {
        **story,
        "over": outcome(calls.on_next, None),
        "responses": drained(call),
        "end": ended(call),
    }


@scenario
def nonblocking_status_of_the_handler(w: World) -> Transcript:
    def behave(request: Any, context: Any, on_next: OnNext) -> None:
        context.set_code(grpc.StatusCode.NOT_FOUND)
        context.set_details("nothing here")
        on_next(None)

    return {"call": told(w, "unary_stream", behave)}


@scenario
def nonblocking_response_that_cannot_be_sent(w: World) -> Transcript:
    def serialize(response: Any) -> Any:
        return response + b""

    calls = Open(w)
    raw = calls.begin()
    story: Transcript = {
        "not_bytes": outcome(calls.on_next, 7),
        "active": calls.context.is_active(),
    }
    story["goes_on"] = [outcome(calls.on_next, b"one"), outcome(calls.on_next, None)]
    story["responses"] = drained(raw)

    said: list[Any] = []
    done = w.gate()

    def behave(request: Any, context: Any, on_next: OnNext) -> None:
        said.extend(outcome(on_next, each) for each in (b"one", object(), b"two", None))
        said.append(context.is_active())
        done.set()

    story["call"] = finish(
        "unary_stream",
        w.method_of(handler("unary_stream", non_blocking(behave), response_serializer=serialize)),
    )
    wait(done)
    story["said"] = said
    story["log"] = w.logged()
    return story


@scenario_of(*STREAMS)
def nonblocking_request_that_cannot_be_read(w: World, kind: str) -> Transcript:
    called: list[bool] = []

    def behave(request: Any, context: Any, on_next: OnNext) -> None:
        called.append(True)
        if kind.startswith("stream"):
            drained(request)
        on_next(None)

    def deserialize(message: bytes) -> Any:
        raise ValueError("unreadable")

    method = w.method_of(handler(kind, non_blocking(behave), request_deserializer=deserialize))
    return {"call": finish(kind, method), "called": called, "log": w.logged()}


def _ended_elsewhere(calls: Open, call: Any) -> Transcript:
    """What handler and client see of a call that the handler has not ended."""
    return {
        "called_back": calls.hear(),
        "active": calls.context.is_active(),
        "said": [outcome(calls.on_next, each) for each in (b"more", None, b"more", None)],
        "late_callback": calls.context.add_callback(calls.hear),
        "headers": outcome(calls.context.send_initial_metadata, ()),
        "code": plain(call.code()),
    }


@scenario
def nonblocking_client_cancels(w: World) -> Transcript:
    calls = Open(w)
    call = calls.begin()
    calls.on_next(b"one")
    first = next(call)
    return {"first": first, "cancel": call.cancel(), **_ended_elsewhere(calls, call)}


@scenario
def nonblocking_deadline_passes(w: World) -> Transcript:
    calls = Open(w)
    call = calls.begin(timeout=0.3)
    return _ended_elsewhere(calls, call)


@scenario
def nonblocking_channel_is_closed(w: World) -> Transcript:
    calls = Open(w)
    call = calls.begin()
    w.close_channels()
    return _ended_elsewhere(calls, call)


@scenario
def nonblocking_server_cancels(w: World) -> Transcript:
    calls = Open(w)
    call = calls.begin()
    calls.context.cancel()
    return _ended_elsewhere(calls, call) | {"details": call.details()}


@scenario
def nonblocking_server_stops(w: World) -> Transcript:
    story: Transcript = {}
    for name, grace in (("at_once", None), ("with_grace", 0.2)):
        came = w.gate()
        called_back = w.gate()

        def behave(
            request: Any,
            context: Any,
            on_next: OnNext,
            came: threading.Event = came,
            called_back: threading.Event = called_back,
        ) -> None:
            at_end(context, called_back.set)
            came.set()

        address = w.address()
        server = w.server({"Do": handler("unary_stream", non_blocking(behave))})
        server.add_insecure_port(address)
        server.start()
        call = w.channel(address).unary_stream(f"/{SERVICE}/Do")(b"")
        wait(came)
        stopped = server.stop(grace).wait(PATIENCE)
        wait(called_back)
        story[name] = {"stopped": stopped, "code": plain(call.code()), "details": call.details()}
    return story


@scenario
def nonblocking_end_lets_a_stopping_server_go(w: World) -> Transcript:
    contexts: list[OnNext] = []
    came = w.gate()

    def behave(request: Any, context: Any, on_next: OnNext) -> None:
        contexts.append(on_next)
        came.set()

    address = w.address()
    server = w.server({"Do": handler("unary_stream", non_blocking(behave))})
    server.add_insecure_port(address)
    server.start()
    call = w.channel(address).unary_stream(f"/{SERVICE}/Do")(b"")
    wait(came)
    stopped = server.stop(10 * PATIENCE)
    contexts[0](b"last")
    contexts[0](None)
    return {"responses": drained(call), "stopped": stopped.wait(PATIENCE)}


@scenario
def nonblocking_callback_wants_what_the_ender_holds(w: World) -> Transcript:
    lock, done = threading.Lock(), w.gate()
    calls = Open(w)
    call = calls.begin()

    def callback() -> None:
        with lock:
            calls.on_next(None)
        done.set()

    at_end(calls.context, callback)
    with lock:
        calls.on_next(b"one")
        calls.on_next(None)
    wait(done)
    return {"responses": drained(call), "called_back": calls.hear()}


@scenario
def nonblocking_callbacks_run_in_order_whatever_they_raise(w: World) -> Transcript:
    order: list[int] = []
    done = w.gate()
    calls = Open(w)
    call = calls.begin()

    def bad() -> None:
        order.append(1)
        raise RuntimeError("bad callback")

    at_end(calls.context, bad)
    at_end(calls.context, lambda: order.append(2))
    at_end(calls.context, done.set)
    calls.on_next(None)
    wait(done)
    return {"responses": drained(call), "order": order, "log": w.logged()}


@scenario
def nonblocking_more_calls_than_threads(w: World) -> Transcript:
    """With one thread, and all of them open at a time."""
    open_calls: list[OnNext] = []
    all_came = w.gate()

    def behave(request: bytes, context: Any, on_next: OnNext) -> None:
        open_calls.append(on_next)
        on_next(request)
        if len(open_calls) == 50:
            all_came.set()

    address = w.serve({"Do": handler("unary_stream", non_blocking(behave))}, pool=w.pool(1))
    method = w.channel(address).unary_stream(f"/{SERVICE}/Do")
    calls = [method(str(each).encode()) for each in range(50)]
    firsts = sorted(next(call) for call in calls)
    wait(all_came)
    for on_next in open_calls:
        on_next(b"end")
        on_next(None)
    return {"firsts": firsts, "rest": [drained(call) for call in calls]}


@scenario
def nonblocking_open_calls_are_not_concurrent_ones(w: World) -> Transcript:
    open_calls: list[OnNext] = []
    returned = w.gate()

    def behave(request: bytes, context: Any, on_next: OnNext) -> None:
        open_calls.append(on_next)
        on_next(request)

    held, entered = w.gate(), w.gate()

    def hold(request: bytes, context: Any) -> bytes:
        entered.set()
        wait(held)
        return b"held"

    class Pool(futures.ThreadPoolExecutor):
        """Signals when a job is over: only then grpcio no longer counts it."""

        def submit(self, fn: Any, /, *args: Any, **named: Any) -> Any:
            future = super().submit(fn, *args, **named)
            future.add_done_callback(lambda _: returned.set())
            return future

    methods = {
        "Watch": handler("unary_stream", non_blocking(behave)),
        "Hold": handler("unary_unary", hold),
    }
    address = w.serve(methods, maximum_concurrent_rpcs=1, pool=Pool(2))
    channel = w.channel(address)
    watch = channel.unary_stream(f"/{SERVICE}/Watch")
    calls = []
    for each in range(3):
        returned.clear()
        calls.append(watch(str(each).encode()))
        next(calls[-1])
        wait(returned)
    holding = channel.unary_unary(f"/{SERVICE}/Hold").future(b"")
    wait(entered)
    refused = drained(watch(b"one too many"))
    for on_next in open_calls:
        on_next(None)
    held.set()
    return {"refused": refused, "held": holding.result(), "ends": [drained(call) for call in calls]}


@scenario_of(*KINDS)
def handler_runs_on_a_pool_of_its_own(w: World, kind: str) -> Transcript:
    story: Transcript = {}
    own = w.pool(1, thread_name_prefix="own")
    for name, pool, not_blocking in (
        ("own", own, False),
        ("own_non_blocking", own, True),
        ("no_pool", "a pool", False),
    ):
        names: list[str] = []

        def behave(
            request: Any,
            context: Any,
            on_next: OnNext | None = None,
            names: list[str] = names,
        ) -> Any:
            names.append(threading.current_thread().name.split("_")[0])
            if on_next is not None:
                return on_next(None)
            return answering(kind, lambda context: None)(request, context)

        behave.experimental_non_blocking = not_blocking  # type: ignore[attr-defined]
        behave.experimental_thread_pool = pool  # type: ignore[attr-defined]
        address = w.serve({"Do": handler(kind, behave)}, pool=w.pool(2, thread_name_prefix="main"))
        call = finish(kind, getattr(w.channel(address), kind)(f"/{SERVICE}/Do"))
        story[name] = {"call": call, "names": names}
    return story


@scenario
def handler_with_a_pool_of_its_own_waits_for_no_other(w: World) -> Transcript:
    """The server's pool is busy, and stays so."""
    entered, gate = w.gate(), w.gate()

    def hold(request: bytes, context: Any) -> bytes:
        entered.set()
        wait(gate)
        return b"held"

    def quick(request: bytes, context: Any) -> bytes:
        return b"quick"

    quick.experimental_thread_pool = w.pool(1)  # type: ignore[attr-defined]
    methods = {"Hold": handler("unary_unary", hold), "Quick": handler("unary_unary", quick)}
    address = w.serve(methods, pool=w.pool(1))
    channel = w.channel(address)
    held = [channel.unary_unary(f"/{SERVICE}/Hold").future(b"") for _ in range(3)]
    wait(entered)
    method = channel.unary_unary(f"/{SERVICE}/Quick")
    answers = [outcome(method, b"", timeout=PATIENCE) for _ in range(2)]
    gate.set()
    return {"answers": answers, "held": [call.result() for call in held]}


@scenario
def nonblocking_error_is_the_clients_going(w: World) -> Transcript:
    seen: list[Any] = []
    cancelled, done = w.gate(), w.gate()
    came = w.gate()

    def behave(request: bytes, context: Any, on_next: OnNext) -> None:
        at_end(context, cancelled.set)
        came.set()
        wait(cancelled)
        try:
            context.send_initial_metadata(())
        except Exception as error:
            seen.append(failure(error))
            done.set()
            raise

    call = w.method("unary_stream", non_blocking(behave))(b"")
    wait(came)
    call.cancel()
    wait(done)
    return {"seen": seen, "code": plain(call.code()), "log": w.logged()}

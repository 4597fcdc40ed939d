"""Client interceptors: in what order they run, and what they may put in a call's place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grpc

from .transcript import Transcript, ended, kinds, outcome, plain
from .world import KINDS, SERVICE, World, answering, asking, finish, handler, scenario


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _DetailsType(_Details, grpc.ClientCallDetails):
    """ClientCallDetails as users write it."""


Act = Callable[[Callable[..., Any], Any, Any], Any]


class _Everywhere(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Does the same act(continuation, details, request) in all four kinds."""

    def __init__(self, act: Act) -> None:
        self._act = act

    def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        return self._act(continuation, client_call_details, request)

    def intercept_unary_stream(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        return self._act(continuation, client_call_details, request)

    def intercept_stream_unary(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return self._act(continuation, client_call_details, request_iterator)

    def intercept_stream_stream(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return self._act(continuation, client_call_details, request_iterator)


def _forms(w: World, kind: str, act: Act, prologue: Any = lambda context: None) -> Transcript:
    """A call of a kind, in each form it has, through an interceptor."""
    channel = w.channel(w.serve({"Do": handler(kind, answering(kind, prologue))}))
    method = getattr(grpc.intercept_channel(channel, _Everywhere(act)), kind)(f"/{SERVICE}/Do")
    story: Transcript = {"call": finish(kind, method)}
    if kind.endswith("unary"):
        story["with_call"] = outcome(lambda: _with_call(method, kind))
        story["future"] = outcome(lambda: method.future(asking(kind)).result())
    return story


def _with_call(method: Any, kind: str) -> Any:
    response, call = method.with_call(asking(kind))
    return [response, ended(call)]


@scenario
def client_interceptor_passes_on(w: World) -> Transcript:
    seen: list[Any] = []

    def act(continuation: Any, details: Any, request: Any) -> Any:
        seen.append([details.method, plain(details.timeout), plain(details.metadata)])
        return continuation(details, request)

    return {kind: _forms(w, kind, act) for kind in KINDS} | {"seen": seen}


@scenario
def client_interceptor_sees_every_argument(w: World) -> Transcript:
    seen: list[Any] = []

    def act(continuation: Any, details: Any, request: Any) -> Any:
        seen.append(
            [
                details.timeout,
                plain(details.metadata),
                details.wait_for_ready,
                plain(details.compression),
            ]
        )
        return continuation(details, request)

    for kind in KINDS:
        channel = w.channel(w.serve({"Do": handler(kind, answering(kind, lambda context: None))}))
        method = getattr(grpc.intercept_channel(channel, _Everywhere(act)), kind)(f"/{SERVICE}/Do")
        named: dict[str, Any] = {
            "timeout": 30,
            "metadata": (("k", "v"),),
            "wait_for_ready": True,
            "compression": grpc.Compression.Gzip,
        }
        seen.append(finish(kind, method, **named))
    return {"seen": seen}


@scenario
def client_interceptor_changes_the_call(w: World) -> Transcript:
    received: list[Any] = []

    def look(context: Any) -> None:
        own = [pair for pair in context.invocation_metadata() if pair[0] == "added"]
        received.append([plain(own), 20 < context.time_remaining() < 42])

    def act(continuation: Any, details: Any, request: Any) -> Any:
        changed = _DetailsType(details.method, 40, (("added", "1"),), None, None, None)
        return continuation(changed, request)

    return {kind: _forms(w, kind, act, look) for kind in KINDS} | {"received": received}


@scenario
def client_interceptor_replaces_the_request(w: World) -> Transcript:
    def echo(request: bytes, context: Any) -> bytes:
        return b"got " + request

    def join(requests: Iterator[bytes], context: Any) -> bytes:
        return b"got " + b"+".join(requests)

    def act(continuation: Any, details: Any, request: Any) -> Any:
        return continuation(details, b"other" if isinstance(request, bytes) else iter([b"o", b"p"]))

    story: Transcript = {}
    for kind, behaviour in (("unary_unary", echo), ("stream_unary", join)):
        channel = w.channel(w.serve({"Do": handler(kind, behaviour)}))
        method = getattr(grpc.intercept_channel(channel, _Everywhere(act)), kind)(f"/{SERVICE}/Do")
        story[kind] = finish(kind, method)
    return story


@scenario
def client_interceptor_looks_at_the_outcome(w: World) -> Transcript:
    seen: list[Any] = []

    def act(continuation: Any, details: Any, request: Any) -> Any:
        call = continuation(details, request)
        seen.append([kinds(call), call.done() in (True, False)])
        call.add_done_callback(lambda done: seen.append(plain(done.code())))
        if details.method.endswith("Unary"):
            seen.append([call.result(), plain(call.code()), plain(call.trailing_metadata())])
        return call

    for kind in ("unary_unary", "stream_unary"):
        behaviour = answering(kind, lambda context: context.set_trailing_metadata((("t", "1"),)))
        channel = w.channel(w.serve({"Unary": handler(kind, behaviour)}))
        intercepted = grpc.intercept_channel(channel, _Everywhere(act))
        seen.append(finish(kind, getattr(intercepted, kind)(f"/{SERVICE}/Unary")))
    return {"seen": seen}


@scenario
def client_interceptor_handles_an_error(w: World) -> Transcript:
    def refuse(context: Any) -> None:
        context.abort(grpc.StatusCode.UNAVAILABLE, "try again")

    tries: list[Any] = []

    def act(continuation: Any, details: Any, request: Any) -> Any:
        call = continuation(details, request)
        if not isinstance(request, bytes):
            return call
        tries.append(plain(call.code()))
        return continuation(details, request) if len(tries) < 2 else call

    return {kind: _forms(w, kind, act, refuse) for kind in KINDS} | {"tries": tries}


@scenario
def client_interceptor_raises(w: World) -> Transcript:
    def act(continuation: Any, details: Any, request: Any) -> Any:
        raise KeyError("intercepted")

    def after(continuation: Any, details: Any, request: Any) -> Any:
        continuation(details, request)
        raise grpc.RpcError("bare")

    return {
        kind: [outcome(_forms, w, kind, act), outcome(_forms, w, kind, after)] for kind in KINDS
    }


class _Outcome(grpc.Call, grpc.Future):  # type: ignore[type-arg]
    """An answer that no server gave."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __iter__(self) -> Iterator[Any]:
        return iter([self._value, self._value])

    def result(self, timeout: float | None = None) -> Any:
        return self._value

    def exception(self, timeout: float | None = None) -> None:
        return None

    def traceback(self, timeout: float | None = None) -> None:
        return None

    def add_done_callback(self, fn: Any) -> None:
        fn(self)

    def add_callback(self, callback: Any) -> bool:
        return False

    def cancel(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def running(self) -> bool:
        return False

    def done(self) -> bool:
        return True

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> Any:
        return None

    def initial_metadata(self) -> Any:
        return (("i", "own"),)

    def trailing_metadata(self) -> Any:
        return (("t", "own"),)

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.OK

    def details(self) -> str:
        return "own"


@scenario
def client_interceptor_answers_itself(w: World) -> Transcript:
    def act(continuation: Any, details: Any, request: Any) -> Any:
        return _Outcome(b"own")

    return {kind: _forms(w, kind, act) for kind in KINDS}


@scenario
def client_interceptor_wraps_the_responses(w: World) -> Transcript:
    def act(continuation: Any, details: Any, request: Any) -> Any:
        call = continuation(details, request)
        return (b"<" + response + b">" for response in call)

    story: Transcript = {}
    for kind in ("unary_stream", "stream_stream"):
        story[kind] = _forms(w, kind, act)
    return story


@scenario
def client_interceptors_run_in_order(w: World) -> Transcript:
    order: list[str] = []

    def named(name: str) -> Any:
        def act(continuation: Any, details: Any, request: Any) -> Any:
            order.append(f"{name} in")
            call = continuation(details, request)
            order.append(f"{name} out")
            return call

        return _Everywhere(act)

    def do(request: bytes, context: Any) -> bytes:
        order.append("do")
        return b""

    channel = w.channel(w.serve({"Do": handler("unary_unary", do)}))
    once = grpc.intercept_channel(channel, named("inner"))
    twice: Any = grpc.intercept_channel(once, named("first"), named("second"))
    answer = twice.unary_unary(f"/{SERVICE}/Do")(b"")
    return {"answer": answer, "order": order}


@scenario
def client_interceptor_of_no_kind(w: World) -> Transcript:
    channel = w.channel(w.address())
    return {"object": outcome(grpc.intercept_channel, channel, object())}


@scenario
def intercepted_channel_is_a_channel(w: World) -> Transcript:
    channel = w.channel(w.serve({"Do": handler("unary_unary", lambda request, context: b"ok")}))
    interceptor = _Everywhere(lambda continuation, details, ask: continuation(details, ask))
    intercepted: Any = grpc.intercept_channel(channel, interceptor)
    ready = grpc.channel_ready_future(intercepted).result(timeout=10)
    with intercepted as entered:
        answer = entered.unary_unary(f"/{SERVICE}/Do")(b"")
    after = outcome(channel.unary_unary(f"/{SERVICE}/Do"), b"")
    return {"kinds": kinds(intercepted), "ready": ready, "answer": answer, "after": after}

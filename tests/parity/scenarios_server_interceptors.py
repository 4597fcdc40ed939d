"""Server interceptors: their order, and the handlers they wrap, replace or refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import grpc

from .transcript import Transcript, plain
from .world import KINDS, SERVICE, World, answering, finish, handler, scenario


class _Server(grpc.ServerInterceptor):
    def __init__(self, act: Callable[[Any, Any], Any]) -> None:
        self._act = act

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        return self._act(continuation, handler_call_details)


def _intercepted(w: World, kind: str, *acts: Callable[[Any, Any], Any]) -> Any:
    behaviour = answering(kind, lambda context: None)
    address = w.serve({"Do": handler(kind, behaviour)}, interceptors=[_Server(act) for act in acts])
    channel = w.channel(address)
    return [
        finish(kind, getattr(channel, kind)(f"/{SERVICE}/{name}"), metadata=(("k", "v"),))
        for name in ("Do", "Undone")
    ]


@scenario
def server_interceptors_run_in_order(w: World) -> Transcript:
    order: list[Any] = []

    def named(name: str) -> Any:
        def act(continuation: Any, details: Any) -> Any:
            own = [pair for pair in details.invocation_metadata if pair[0] == "k"]
            order.append([name, details.method, plain(own)])
            found = continuation(details)
            order.append([name, found is not None])
            return found

        return act

    calls = {kind: _intercepted(w, kind, named("1"), named("2")) for kind in KINDS}
    return calls | {"order": order}


@scenario
def server_interceptor_finds_nothing(w: World) -> Transcript:
    return {kind: _intercepted(w, kind, lambda continuation, details: None) for kind in KINDS}


@scenario
def server_interceptor_raises(w: World) -> Transcript:
    def act(continuation: Any, details: Any) -> Any:
        raise KeyError("intercepted")

    return {kind: _intercepted(w, kind, act) for kind in KINDS} | {"log": w.logged()}


@scenario
def server_interceptor_refuses(w: World) -> Transcript:
    def refuse(request: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "who?")

    def act(continuation: Any, details: Any) -> Any:
        found = continuation(details)
        if found is None:
            return None
        kind = _kind(found)
        return handler(kind, refuse)

    return {kind: _intercepted(w, kind, act) for kind in KINDS} | {"log": w.logged()}


def _kind(found: Any) -> str:
    names = {False: "unary", True: "stream"}
    return f"{names[found.request_streaming]}_{names[found.response_streaming]}"


@scenario
def server_interceptor_wraps_the_handler(w: World) -> Transcript:
    def act(continuation: Any, details: Any) -> Any:
        found = continuation(details)
        if found is None:
            return None
        kind = _kind(found)
        inner = getattr(found, kind)

        def outer(request: Any, context: Any) -> Any:
            context.set_trailing_metadata((("wrapped", "1"),))
            return inner(request, context)

        return handler(
            kind,
            outer,
            request_deserializer=found.request_deserializer,
            response_serializer=lambda message: b"<" + message + b">",
        )

    return {kind: _intercepted(w, kind, act) for kind in KINDS}


@scenario
def server_interceptor_changes_the_details(w: World) -> Transcript:
    class Details(NamedTuple):
        method: str
        invocation_metadata: Any

    def act(continuation: Any, details: Any) -> Any:
        return continuation(Details(details.method.replace("Undone", "Do"), ()))

    return {"calls": _intercepted(w, "unary_unary", act)}

"""Handlers of a server: how they are found, on what they run, and how many at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc

from .transcript import Transcript, drained, error_of, outcome, plain
from .world import KINDS, SERVICE, World, finish, generic, handler, ok, scenario, wait


class _Odd:
    def __repr__(self) -> str:
        return "odd"


@scenario
def server_handlers_that_are_none(w: World) -> Transcript:
    return {
        "at_creation": outcome(lambda: w.backend.make_server(w.pool(), handlers=[_Odd()])),
        "added": outcome(w.server().add_generic_rpc_handlers, (_Odd(),)),
        "no_iterable": type(error_of(lambda: w.server().add_generic_rpc_handlers(7))).__name__,
        "none_at_all": outcome(w.server().add_generic_rpc_handlers, ()),
    }


class _Generic(grpc.GenericRpcHandler):
    def __init__(self, name: str, order: list[Any], answer: Any) -> None:
        self._name, self._order, self._answer = name, order, answer

    def service(self, handler_call_details: Any) -> Any:
        own = [pair for pair in handler_call_details.invocation_metadata if pair[0] == "k"]
        self._order.append([self._name, handler_call_details.method, plain(own)])
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


@scenario
def server_asks_generic_handlers_in_order(w: World) -> Transcript:
    order: list[Any] = []
    address = w.address()
    server = w.server()
    server.add_generic_rpc_handlers((_Generic("first", order, None),))
    server.add_generic_rpc_handlers(
        [_Generic("second", order, handler("unary_unary", ok)), _Generic("third", order, None)]
    )
    server.add_insecure_port(address)
    server.start()
    method = w.channel(address).unary_unary("/any/Thing")
    return {"call": outcome(method, b"", metadata=(("k", "v"),)), "order": order}


@scenario
def server_generic_handler_raises(w: World) -> Transcript:
    address = w.address()
    server = w.server(handlers=[_Generic("bad", [], RuntimeError("lost"))])
    server.add_insecure_port(address)
    server.start()
    return {"call": outcome(w.channel(address).unary_unary("/any/Thing"), b""), "log": w.logged()}


@scenario
def server_generic_handler_added_while_running(w: World) -> Transcript:
    address = w.address()
    server = w.server()
    server.add_insecure_port(address)
    server.start()
    method = w.channel(address).unary_unary(f"/{SERVICE}/Do")
    before = outcome(method, b"")
    server.add_generic_rpc_handlers((generic({"Do": handler("unary_unary", ok)}),))
    return {"before": before, "after": outcome(method, b"")}


@scenario
def server_registered_methods(w: World) -> Transcript:
    address = w.address()
    server = w.server({"Do": handler("unary_unary", lambda request, context: b"generic")})
    server.add_registered_method_handlers(
        SERVICE,
        {
            "Do": handler("unary_unary", lambda request, context: b"registered"),
            "Count": handler("stream_stream", lambda requests, context: requests),
        },
    )
    server.add_insecure_port(address)
    server.start()
    late = server.add_registered_method_handlers(SERVICE, {"Late": handler("unary_unary", ok)})
    channel = w.channel(address)
    return {
        "do": channel.unary_unary(f"/{SERVICE}/Do")(b""),
        "count": drained(channel.stream_stream(f"/{SERVICE}/Count")(iter([b"1", b"2"]))),
        "late": late,
        "late_call": outcome(channel.unary_unary(f"/{SERVICE}/Late"), b""),
        "log": w.logged(),
    }


@scenario
def server_limits_concurrent_calls(w: World) -> Transcript:
    entered, gate = w.gate(), w.gate()

    def hold(request: bytes, context: Any) -> bytes:
        entered.set()
        wait(gate)
        return b"held"

    address = w.serve({"Do": handler("unary_unary", hold)}, maximum_concurrent_rpcs=1)
    channel = w.channel(address)
    held = channel.unary_unary(f"/{SERVICE}/Do").future(b"")
    wait(entered)
    refused = {kind: finish(kind, getattr(channel, kind)(f"/{SERVICE}/Do")) for kind in KINDS}
    unknown = outcome(channel.unary_unary(f"/{SERVICE}/No"), b"")
    gate.set()
    return {"refused": refused, "unknown": unknown, "held": held.result()}


@scenario
def server_pool_is_smaller_than_the_calls(w: World) -> Transcript:
    method_address = w.serve({"Do": handler("unary_unary", ok)}, pool=w.pool(1))
    method = w.channel(method_address).unary_unary(f"/{SERVICE}/Do")
    calls = [method.future(b"") for _ in range(10)]
    return {"answers": [call.result(timeout=10) for call in calls]}


@scenario
def server_runs_handlers_on_the_pool(w: World) -> Transcript:
    ready: list[str] = []
    names: list[str] = []
    pool = w.pool(2, thread_name_prefix="own", initializer=ready.append, initargs=("initialized",))

    def look(request: bytes, context: Any) -> Iterator[bytes]:
        names.append(threading.current_thread().name.split("_")[0])
        yield b""
        names.append(threading.current_thread().name.split("_")[0])

    address = w.serve({"Do": handler("unary_stream", look)}, pool=pool)
    list(w.channel(address).unary_stream(f"/{SERVICE}/Do")(b""))
    return {"names": names, "initialized": "initialized" in ready}


@scenario
def server_arguments_of_every_sort(w: World) -> Transcript:
    story: Transcript = {}
    arguments: dict[str, dict[str, Any]] = {
        "nothing": {},
        "nones": {
            "handlers": None,
            "interceptors": None,
            "options": None,
            "maximum_concurrent_rpcs": None,
            "compression": None,
        },
        "compression": {"compression": grpc.Compression.Gzip},
        "options": {"options": (("grpc.so_reuseport", 0), ("grpc.no_such_option", "x"))},
    }
    for name, named in arguments.items():
        address = w.address()
        server = w.server(**named)
        server.add_generic_rpc_handlers((generic({"Do": handler("unary_unary", ok)}),))
        server.add_insecure_port(address)
        server.start()
        story[name] = w.channel(address).unary_unary(f"/{SERVICE}/Do")(b"")
    return story

"""Server: its life, its graces and its ports."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import grpc

from tests.endings import at_end

from .transcript import Transcript, drained, ended, error_of, outcome, plain
from .world import (
    KINDS,
    SERVICE,
    World,
    answering,
    begin,
    handler,
    name_of,
    ok,
    scenario,
    wait,
)


def _code(act: Any) -> Any:
    """The status code alone, where the words are the transport's."""
    try:
        return plain(act())
    except grpc.RpcError as error:
        return plain(error.code())


def _refused(act: Any) -> bool:
    """With which code depends on how far grpcio's server has come: UNAVAILABLE, or no answer."""
    try:
        act()
    except grpc.RpcError:
        return True
    return False


@scenario
def server_life_in_order(w: World) -> Transcript:
    server = w.server({"Do": handler("unary_unary", ok)})
    address = w.address()
    story: Transcript = {
        "stop_before_start": server.stop(None).is_set(),
        "wait_before_start": server.wait_for_termination(timeout=0.01),
        "port": server.add_insecure_port(address),
        "start": server.start(),
        "start_twice": outcome(server.start),
        "wait_running": server.wait_for_termination(timeout=0.01),
        "wait_positional": server.wait_for_termination(0),
    }
    method = w.channel(address).unary_unary(f"/{SERVICE}/Do")
    story["call"] = method(b"")
    stopping = server.stop(grace=None)
    story["stopped"] = [type(stopping).__name__, stopping.wait(10)]
    story["wait_stopped"] = [server.wait_for_termination(), server.wait_for_termination(timeout=1)]
    story["call_stopped"] = _code(lambda: method(b""))
    story["stop_twice"] = server.stop(None).wait(10)
    story["stop_with_grace"] = server.stop(5).is_set()
    story["start_again"] = type(error_of(server.start)).__name__
    return story


@scenario
def server_started_without_a_port(w: World) -> Transcript:
    server = w.server()
    server.start()
    return {"stop": server.stop(0).wait(10)}


@scenario
def server_wait_is_ended_by_stop(w: World) -> Transcript:
    address = w.address()
    server = w.server({})
    server.add_insecure_port(address)
    server.start()
    answers: list[Any] = []
    waiter = threading.Thread(target=lambda: answers.append(server.wait_for_termination()))
    waiter.start()
    server.stop(None)
    waiter.join(10)
    return {"answers": answers}


def _busy(w: World, kind: str, told: threading.Event | None = None) -> tuple[Any, Any, Any, Any]:
    """A server with one call in a handler: server, call, gate of the handler, event of its end."""
    entered, gate, over = w.gate(), w.gate(), w.gate()

    def hold(context: Any) -> None:
        at_end(context, over.set)
        entered.set()
        wait(gate)
        if told is not None:
            told.set()

    address = w.address()
    server = w.server({"Do": handler(kind, answering(kind, hold))})
    server.add_insecure_port(address)
    server.start()
    channel = w.channel(address)
    method = getattr(channel, kind)(f"/{SERVICE}/Do")
    call = begin(kind, method)
    wait(entered)
    return server, call, gate, over


@scenario
def server_stopped_in_the_middle(w: World) -> Transcript:
    story: Transcript = {}
    for kind in KINDS:
        server, call, gate, over = _busy(w, kind)
        stopping = server.stop(None)
        error = call.exception()
        wait(over)
        gate.set()
        story[kind] = {
            "stopped": stopping.wait(10),
            "is_itself": error is call,
            "ended": ended(call),
        }
    return story


@scenario
def server_grace_that_suffices(w: World) -> Transcript:
    story: Transcript = {}
    for kind in KINDS:
        server, call, gate, over = _busy(w, kind)
        stopping = server.stop(10)
        story[kind] = [stopping.is_set()]
        gate.set()
        seen = drained(call) if kind.endswith("stream") else outcome(call.result)
        wait(over)
        story[kind] += [seen, plain(call.code()), stopping.wait(10)]
    return story


@scenario
def server_grace_that_does_not_suffice(w: World) -> Transcript:
    story: Transcript = {}
    for kind in KINDS:
        server, call, gate, over = _busy(w, kind)
        stopping = server.stop(0.05)
        story[kind] = [stopping.is_set(), plain(call.code()), stopping.wait(10)]
        wait(over)
        gate.set()
    return story


@scenario
def server_grace_cut_short(w: World) -> Transcript:
    server, call, gate, over = _busy(w, "unary_unary")
    patient = server.stop(60)
    hasty = server.stop(None)
    wait(over)
    gate.set()
    return {
        "code": plain(call.code()),
        "events": [patient.wait(10), hasty.wait(10)],
        "terminated": server.wait_for_termination(timeout=10),
    }


@scenario
def server_refuses_new_calls_in_its_grace(w: World) -> Transcript:
    entered, gate = w.gate(), w.gate()

    def hold(request: bytes, context: Any) -> bytes:
        entered.set()
        wait(gate)
        return b"held"

    address = w.address()
    server = w.server({"Hold": handler("unary_unary", hold), "Do": handler("unary_unary", ok)})
    server.add_insecure_port(address)
    server.start()
    channel = w.channel(address)
    held = channel.unary_unary(f"/{SERVICE}/Hold").future(b"")
    wait(entered)
    stopping = server.stop(10)
    late = _refused(lambda: channel.unary_unary(f"/{SERVICE}/Do")(b"", timeout=2))
    other = _refused(lambda: w.channel(address).unary_unary(f"/{SERVICE}/Do")(b"", timeout=2))
    gate.set()
    return {"late": late, "other": other, "held": held.result(), "stopped": stopping.wait(10)}


@scenario
def server_handler_outlives_the_server(w: World) -> Transcript:
    told = w.gate()
    server, _, gate, over = _busy(w, "unary_unary", told)
    server.stop(None).wait(10)
    wait(over)
    early = told.is_set()
    gate.set()
    wait(told)
    return {"early": early, "log": w.logged()}


@scenario
def server_on_several_ports(w: World) -> Transcript:
    addresses = [w.address() for _ in range(3)]
    server = w.server({"Do": handler("unary_unary", ok)})
    ports = [server.add_insecure_port(address) for address in addresses]
    server.start()
    calls = [w.channel(each).unary_unary(f"/{SERVICE}/Do")(b"") for each in addresses]
    return {"ports": ports, "calls": calls}


@scenario
def server_ports_that_cannot_be(w: World) -> Transcript:
    story: Transcript = {}
    places = {
        "no_directory": w.backend.address("/nonexistent/directory/port"),
        "too_long": w.backend.address("/tmp/" + "x" * 300),
        "not_a_directory": w.backend.address("/etc/passwd/port"),
    }
    for name, address in places.items():
        error = error_of(partial(w.server().add_insecure_port, address))
        story[name] = [isinstance(error, RuntimeError), name_of(address) in str(error)]
    story["none"] = type(error_of(lambda: w.server().add_insecure_port(None))).__name__
    story["after"] = w.server().add_insecure_port(w.address())
    return story


@scenario
def server_port_of_another_server(w: World) -> Transcript:
    address = w.serve({"Do": handler("unary_unary", ok)})
    return {"taken": type(error_of(lambda: w.server().add_insecure_port(address))).__name__}


@scenario
def server_port_is_free_again_after_stop(w: World) -> Transcript:
    address = w.address()
    ports = []
    for _ in range(3):
        server = w.server()
        ports.append(server.add_insecure_port(address))
        server.start()
        server.stop(None).wait(10)
    return {"ports": ports}


@scenario
def server_secure_port(w: World) -> Transcript:
    credentials = grpc.local_server_credentials(grpc.LocalConnectionType.UDS)
    return {"port": outcome(w.server().add_secure_port, w.address(), credentials)}

"""Channel: connectivity, closing, and servers that come, go and are not there."""

from __future__ import annotations

import queue
import threading
from typing import Any

import grpc

from tests.endings import at_end

from .transcript import Transcript, drained, ended, error_of, outcome, plain
from .world import (
    KINDS,
    PATIENCE,
    SERVICE,
    World,
    answering,
    asking,
    begin,
    handler,
    name_of,
    ok,
    scenario,
    scenario_of,
    wait,
)

_QUICK = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 100),
)


def _served(w: World) -> str:
    return w.serve({"Do": handler("unary_unary", ok)})


def _until(states: queue.Queue[Any], wanted: grpc.ChannelConnectivity) -> list[Any]:
    """Record the states up to the wanted one, which must come."""
    seen: list[Any] = []
    while wanted not in seen:
        seen.append(states.get(timeout=PATIENCE))
    return seen


@scenario
def connectivity_of_a_channel_left_alone(w: World) -> Transcript:
    states: queue.Queue[Any] = queue.Queue()
    channel = w.channel(_served(w))
    channel.subscribe(states.put)
    return {"first": plain(states.get(timeout=PATIENCE))}


@scenario
def connectivity_on_the_way_up(w: World) -> Transcript:
    states: queue.Queue[Any] = queue.Queue()
    channel = w.channel(_served(w))
    channel.subscribe(states.put, try_to_connect=True)
    seen = _until(states, grpc.ChannelConnectivity.READY)
    late: queue.Queue[Any] = queue.Queue()
    channel.subscribe(late.put, try_to_connect=False)
    return {"last": plain(seen[-1]), "late": plain(late.get(timeout=PATIENCE))}


@scenario
def connectivity_after_a_call(w: World) -> Transcript:
    states: queue.Queue[Any] = queue.Queue()
    channel = w.channel(_served(w))
    channel.unary_unary(f"/{SERVICE}/Do")(b"")
    channel.subscribe(states.put)
    return {"first": plain(states.get(timeout=PATIENCE))}


@scenario
def connectivity_without_a_server(w: World) -> Transcript:
    states: queue.Queue[Any] = queue.Queue()
    channel = w.channel(w.address(), options=_QUICK)
    channel.subscribe(states.put, True)
    failed = grpc.ChannelConnectivity.TRANSIENT_FAILURE
    return {"reached": plain(_until(states, failed)[-1])}


@scenario
def connectivity_when_the_server_stops(w: World) -> Transcript:
    states: queue.Queue[Any] = queue.Queue()
    address = w.address()
    server = w.server({})
    server.add_insecure_port(address)
    server.start()
    channel = w.channel(address, options=_QUICK)
    channel.subscribe(states.put, try_to_connect=True)
    _until(states, grpc.ChannelConnectivity.READY)
    server.stop(None).wait(PATIENCE)
    return {"next": plain(states.get(timeout=PATIENCE))}


@scenario
def connectivity_unsubscribed(w: World) -> Transcript:
    kept: queue.Queue[Any] = queue.Queue()
    dropped: queue.Queue[Any] = queue.Queue()
    channel = w.channel(_served(w))
    channel.subscribe(dropped.put)
    channel.subscribe(kept.put)
    first = [plain(each.get(timeout=PATIENCE)) for each in (dropped, kept)]
    channel.unsubscribe(dropped.put)
    unknown = outcome(channel.unsubscribe, print)
    channel.unary_unary(f"/{SERVICE}/Do")(b"")
    _until(kept, grpc.ChannelConnectivity.READY)
    return {"first": first, "unknown": unknown, "dropped": dropped.empty()}


@scenario
def connectivity_callback_raises(w: World) -> Transcript:
    states: queue.Queue[Any] = queue.Queue()

    def fail(state: Any) -> None:
        states.put(state)
        raise KeyError("callback")

    channel = w.channel(_served(w))
    channel.subscribe(fail, try_to_connect=True)
    last = _until(states, grpc.ChannelConnectivity.READY)[-1]
    return {"last": plain(last), "log": w.logged()[0]}


@scenario
def ready_future_of_a_served_channel(w: World) -> Transcript:
    future = grpc.channel_ready_future(w.channel(_served(w)))
    told: queue.Queue[Any] = queue.Queue()
    future.add_done_callback(told.put)
    result = future.result(timeout=PATIENCE)
    return {
        "result": result,
        "told": told.get(timeout=PATIENCE) is future,
        "state": [future.done(), future.running(), future.cancelled(), future.cancel()],
        "exception": future.exception(timeout=1),
        "traceback": future.traceback(timeout=1),
    }


@scenario
def ready_future_without_a_server(w: World) -> Transcript:
    future = grpc.channel_ready_future(w.channel(w.address()))
    early = outcome(future.result, timeout=0.05)
    return {
        "early": early,
        "state": [future.done(), future.running(), future.cancelled()],
        "cancel": [future.cancel(), future.cancelled()],
        "result": outcome(future.result),
    }


@scenario
def ready_future_of_a_server_that_comes_later(w: World) -> Transcript:
    address = w.address()
    future = grpc.channel_ready_future(w.channel(address, options=_QUICK))
    early = outcome(future.result, timeout=0.02)
    server = w.server({})
    server.add_insecure_port(address)
    server.start()
    return {"early": early, "late": future.result(timeout=PATIENCE)}


@scenario
def nobody_listens(w: World) -> Transcript:
    story: Transcript = {}
    for kind in KINDS:
        address = w.address()
        method = getattr(w.channel(address), kind)(f"/{SERVICE}/Do")
        call = begin(kind, method)
        error = call.exception()
        story[kind] = {
            "code": plain(call.code()),
            "is_itself": error is call,
            "names_the_target": name_of(address) in call.details(),
            "metadata": [plain(call.initial_metadata()), plain(call.trailing_metadata())],
        }
    return story


@scenario
def nobody_listens_to_a_blocking_call(w: World) -> Transcript:
    address = w.address()
    channel = w.channel(address)
    story: Transcript = {}
    for kind in ("unary_unary", "stream_unary"):
        method = getattr(channel, kind)(f"/{SERVICE}/Do")
        for form in ("__call__", "with_call"):
            try:
                getattr(method, form)(asking(kind), timeout=5)
            except grpc.RpcError as error:
                named = name_of(address) in str(error.details())
                story[f"{kind} {form}"] = [plain(error.code()), named]
    return story


@scenario
def wait_for_ready_outwaits_the_deadline(w: World) -> Transcript:
    channel = w.channel(w.address(), options=_QUICK)
    story: Transcript = {}
    for kind in KINDS:
        method = getattr(channel, kind)(f"/{SERVICE}/Do")
        call = begin(kind, method, wait_for_ready=True, timeout=0.1)
        story[kind] = plain(call.code())
    return story


@scenario
def wait_for_ready_until_a_server_comes(w: World) -> Transcript:
    story: Transcript = {}
    for kind in KINDS:
        address = w.address()
        method = getattr(w.channel(address, options=_QUICK), kind)(f"/{SERVICE}/Do")
        call = begin(kind, method, wait_for_ready=True, timeout=PATIENCE)
        before = call.done()
        server = w.server({"Do": handler(kind, answering(kind, lambda context: None))})
        server.add_insecure_port(address)
        server.start()
        seen = drained(call) if kind.endswith("stream") else call.result()
        story[kind] = [before, seen, ended(call)]
    return story


@scenario
def wait_for_ready_can_be_cancelled(w: World) -> Transcript:
    method = w.channel(w.address()).unary_unary(f"/{SERVICE}/Do")
    call = method.future(b"", wait_for_ready=True)
    return {"cancel": call.cancel(), "ended": ended(call), "result": outcome(call.result)}


@scenario
def restarted_server_is_found_again(w: World) -> Transcript:
    address = w.address()
    method = w.channel(address, options=_QUICK).unary_unary(f"/{SERVICE}/Do")
    answers = []
    for number in range(3):
        server = w.server({"Do": handler("unary_unary", lambda request, context: request)})
        server.add_insecure_port(address)
        server.start()
        answers.append(method(str(number).encode(), wait_for_ready=True, timeout=PATIENCE))
        server.stop(None).wait(PATIENCE)
    return {"answers": answers}


@scenario
def closed_channel_refuses_calls(w: World) -> Transcript:
    channel = w.channel(_served(w))
    methods = {kind: getattr(channel, kind)(f"/{SERVICE}/Do") for kind in KINDS}
    answer = methods["unary_unary"](b"")
    story: Transcript = {"answer": answer, "close": [channel.close(), outcome(channel.close)]}
    for kind, method in methods.items():
        story[kind] = outcome(method, asking(kind))
        if kind.endswith("unary"):
            story[f"{kind} with_call"] = outcome(method.with_call, asking(kind))
            story[f"{kind} future"] = outcome(method.future, asking(kind))
    story["new"] = outcome(lambda: channel.unary_unary(f"/{SERVICE}/Do")(b""))
    story["never_used"] = outcome(_closed_unused, w)
    return story


def _closed_unused(w: World) -> Any:
    channel = w.channel(w.address())
    channel.close()
    return channel.unary_unary("/a/b")(b"")


@scenario_of(*KINDS)
def closing_ends_calls_under_way(w: World, kind: str) -> Any:
    entered, gate, over = w.gate(), w.gate(), w.gate()

    def hold(context: Any) -> None:
        at_end(context, over.set)
        entered.set()
        wait(gate)

    channel = w.channel(w.serve({"Do": handler(kind, answering(kind, hold))}))
    call = begin(kind, getattr(channel, kind)(f"/{SERVICE}/Do"))
    wait(entered)
    channel.close()
    wait(over)
    gate.set()
    return [ended(call), call.cancelled(), outcome(call.result)]


@scenario
def closing_ends_a_blocking_call(w: World) -> Transcript:
    entered, gate = w.gate(), w.gate()

    def hold(request: bytes, context: Any) -> bytes:
        entered.set()
        wait(gate)
        return b""

    channel = w.channel(w.serve({"Do": handler("unary_unary", hold)}))
    seen: list[Any] = []
    caller = threading.Thread(
        target=lambda: seen.append(outcome(channel.unary_unary(f"/{SERVICE}/Do"), b""))
    )
    caller.start()
    wait(entered)
    channel.close()
    caller.join(PATIENCE)
    return {"seen": seen}


@scenario
def channel_as_context_manager(w: World) -> Transcript:
    channel = w.channel(_served(w))
    with channel as entered:
        same = entered is channel
        answer = channel.unary_unary(f"/{SERVICE}/Do")(b"")
    after = outcome(channel.unary_unary(f"/{SERVICE}/Do"), b"")

    def leave_raising() -> None:
        with w.channel(w.address()):
            raise KeyError("through")

    return {"same": same, "answer": answer, "after": after, "raising": outcome(leave_raising)}


@scenario
def channel_arguments_of_every_sort(w: World) -> Transcript:
    address = _served(w)
    story: Transcript = {}
    arguments: dict[str, dict[str, Any]] = {
        "nothing": {},
        "nones": {"options": None, "compression": None},
        "compression": {"compression": grpc.Compression.Gzip},
        "options": {"options": [("grpc.no_such_option", 1), ("grpc.keepalive_time_ms", 10000)]},
    }
    for name, named in arguments.items():
        story[name] = w.channel(address, **named).unary_unary(f"/{SERVICE}/Do")(b"")
    return story


@scenario
def targets_that_are_no_strings(w: World) -> Transcript:
    story: Transcript = {}
    for odd in (None, 7):
        try:
            w.channel(odd)  # type: ignore[arg-type]
        except Exception as error:
            story[str(odd)] = type(error).__name__
    return story


@scenario
def targets_in_places_that_cannot_be(w: World) -> Transcript:
    """The channel can be made; its calls fail."""
    story: Transcript = {}
    for path in ("/nonexistent/directory/name", "/etc/passwd/name"):
        method = w.channel(w.backend.address(path)).unary_unary(f"/{SERVICE}/Do")
        call = method.future(b"", timeout=5)
        story[path] = [plain(call.code()), path in call.details()]
    return story


@scenario_of("carrier-pigeon:coop", "", "nothing", "unix:")
def target_that_is_none(w: World, target: str) -> Any:
    """grpcio takes almost anything for a host's name, and fails when the call is made."""
    error = error_of(lambda: w.channel(target).unary_unary("/a/b")(b"", timeout=5))
    return "RpcError" if isinstance(error, grpc.RpcError) else isinstance(error, ValueError)

"""A peer that does not speak the protocol, and threads and exits at awkward moments."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from grpc import experimental

from tests.endings import at_end
from tests.places import occupy, visit

from .transcript import Transcript, ended, outcome, plain
from .world import (
    KINDS,
    PATIENCE,
    SERVICE,
    World,
    asking,
    begin,
    generic,
    handler,
    name_of,
    ok,
    scenario,
    scenario_of,
    wait,
)

_NOISE = {
    "random": bytes(range(255, 0, -1)) * 20,
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "zeros": bytes(64),
    "nothing": b"",
}


def _path(address: str) -> str:
    return name_of(address).split(":", 1)[1]


@scenario_of(*_NOISE)
def server_is_sent(w: World, noise: str) -> Any:
    """Whatever a foreign peer sends, and however it leaves, the calls of others go on."""
    address = w.serve({"Do": handler("unary_unary", ok)})
    method = w.channel(address).unary_unary(f"/{SERVICE}/Do")
    before = method(b"")
    with visit(address) as stranger:
        stranger.sendall(_NOISE[noise])
        during = method(b"", timeout=PATIENCE)
    after = w.channel(address).unary_unary(f"/{SERVICE}/Do")(b"", timeout=PATIENCE)
    return [before, during, after]


@scenario_of(*_NOISE)
def client_is_answered_with(w: World, noise: str) -> Any:
    """A listener that is not a server: it sends other bytes, closes, and does not answer again."""
    address = w.address()
    with occupy(address) as listener:

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.sendall(_NOISE[noise])

        stranger = threading.Thread(target=answer)
        stranger.start()
        call = begin("unary_unary", w.channel(address).unary_unary("/a/b"), timeout=PATIENCE)
        code = plain(call.code())
        stranger.join()
    return code


@scenario
def client_is_not_answered(w: World) -> Transcript:
    address = w.address()
    with occupy(address):
        call = begin("unary_unary", w.channel(address).unary_unary("/a/b"), timeout=0.1)
        return {"ended": plain(call.code())}


@scenario_of("blocking", *KINDS)
def channel_closes_while_it_connects(w: World, kind: str) -> Any:
    """The call had begun, so it ends; what comes afterwards is refused."""
    address = w.address()
    story: list[Any] = []
    with occupy(address) as listener:
        channel = w.channel(address)

        def go() -> None:
            if kind == "blocking":
                story.append(outcome(channel.unary_unary("/a/b"), b""))
                return
            call = begin(kind, getattr(channel, kind)("/a/b"))
            story.append([plain(call.code()), call.details(), call.cancelled()])

        caller = threading.Thread(target=go)
        caller.start()
        peer, _ = listener.accept()
        with peer:
            channel.close()
            caller.join(PATIENCE)
            story.append(caller.is_alive())
    story.append(outcome(channel.unary_unary("/a/b"), b""))
    return story


@scenario
def file_in_the_place_of_a_socket(w: World) -> Transcript:
    if not w.backend.has_paths:
        return {}
    address = w.address()
    with open(_path(address), "w") as file:
        file.write("not a socket")
    call = begin("unary_unary", w.channel(address).unary_unary("/a/b"), timeout=5)
    server = w.server()
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        refused = name_of(address) in str(error)
    else:
        refused = False
    with open(_path(address)) as file:
        return {"call": plain(call.code()), "refused": refused, "kept": file.read()}


@scenario
def next_is_interrupted_by_cancel(w: World) -> Transcript:
    entered, over = w.gate(), w.gate()

    def hold(request: bytes, context: Any) -> Iterator[bytes]:
        at_end(context, over.set)
        yield b"1"
        entered.set()
        wait(over)

    call = w.method("unary_stream", hold)(b"")
    seen: list[Any] = [next(call)]
    reader = threading.Thread(target=lambda: seen.append(outcome(next, call)))
    reader.start()
    wait(entered)
    call.cancel()
    reader.join(PATIENCE)
    return {"seen": seen, "ended": ended(call)}


@scenario
def result_is_interrupted_by_cancel(w: World) -> Transcript:
    entered, over = w.gate(), w.gate()

    def hold(request: bytes, context: Any) -> bytes:
        at_end(context, over.set)
        entered.set()
        wait(over)
        return b""

    call = w.method("unary_unary", hold).future(b"")
    seen: list[Any] = []
    reader = threading.Thread(target=lambda: seen.append(outcome(call.result)))
    reader.start()
    wait(entered)
    call.cancel()
    reader.join(PATIENCE)
    return {"seen": seen}


@scenario
def generator_is_closed_when_its_call_is_cancelled(w: World) -> Transcript:
    over, closed = w.gate(), w.gate()

    def count(request: bytes, context: Any) -> Iterator[bytes]:
        at_end(context, over.set)
        try:
            yield b"1"
            wait(over)
            yield b"2"
            yield b"3"
        finally:
            closed.set()

    call = w.method("unary_stream", count)(b"")
    first = next(call)
    call.cancel()
    wait(closed)
    return {"first": first, "closed": True, "log": w.logged()}


@scenario
def nested_call_has_a_deadline_of_its_own(w: World) -> Transcript:
    left: list[bool] = []

    def inner(request: bytes, context: Any) -> bytes:
        left.append(context.time_remaining() < 25)
        return b"inner"

    method = w.method("unary_unary", inner)

    def outer(request: bytes, context: Any) -> bytes:
        plainly: bytes = method(b"")
        longer: bytes = method(b"", timeout=60)
        return plainly + longer

    return {"answer": w.method("unary_unary", outer)(b"", timeout=20), "limited": left}


@scenario_of("unary_unary", "unary_stream", "stream_unary", "stream_stream")
def handler_calls_its_own_server(w: World, kind: str) -> Any:
    """A handler may call the server it runs on, over a separate or a common channel."""
    address = w.address()
    channel = w.channel(address)

    def pass_on(request: Any, context: Any) -> bytes:
        if kind.startswith("stream"):
            list(request)
        answer: bytes = channel.unary_unary(f"/{SERVICE}/Inner")(b"")
        return b"via " + answer

    def stream(request: Any, context: Any) -> Iterator[bytes]:
        yield pass_on(request, context)

    server = w.server()
    behaviour = stream if kind.endswith("stream") else pass_on
    server.add_generic_rpc_handlers(
        (generic({"Outer": handler(kind, behaviour), "Inner": handler("unary_unary", ok)}),)
    )
    server.add_insecure_port(address)
    server.start()
    seen = getattr(channel, kind)(f"/{SERVICE}/Outer")(asking(kind))
    return list(seen) if kind.endswith("stream") else seen


@scenario
def single_threaded_response_streams(w: World) -> Transcript:
    """grpcio's option for response streams without a thread; the responses are the same."""
    address = w.serve({"Do": handler("unary_stream", lambda request, context: iter([b"1", b"2"]))})
    option = (experimental.ChannelOptions.SingleThreadedUnaryStream, 1)
    call = w.channel(address, options=[option]).unary_stream(f"/{SERVICE}/Do")(b"")
    return {"seen": list(call), "ended": ended(call)}

"""What both sides count of calls that end in every way, over every sort of transport."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

import localrpc
from localrpc.observe import Counts
from tests.aio.house import house as aio_house
from tests.conftest import fresh_target
from tests.peers import processes
from tests.peers.journal import Journal
from tests.peers.station import Station
from tests.rpc.house import PATIENCE, House, await_that, dial

from .readings import counts, expect, statuses

KINDS = ("shm-eventfd", "unix", "tcp", "pipe", "mq", "inproc")
OK, CANCELLED = {"OK": 1}, {"CANCELLED": 1}


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, runtime_directory: str) -> str:
    return fresh_target(request.param, runtime_directory)


def code(call: Any) -> str:
    """What the caller sees."""
    error = call.exception(PATIENCE)
    return "OK" if error is None else str(error.code().name)


def every_kind(house: House) -> None:
    assert house.unary("echo")(b"x", timeout=PATIENCE) == b"x"
    assert list(house.stream("count")(b"3", timeout=PATIENCE)) == [b"0", b"1", b"2"]
    length = house.channel.stream_unary("/house/length")
    assert length(iter([b"a", b"bc"]), timeout=PATIENCE) == b"3"
    mirror = house.channel.stream_stream("/house/mirror")
    assert list(mirror(iter([b"a", b"b"]), timeout=PATIENCE)) == [b"a", b"b"]


def unary(method: str, request: bytes = b"") -> Callable[[House], Any]:
    return lambda house: house.unary(method).future(request, timeout=PATIENCE).exception(PATIENCE)


def deadline(house: House) -> None:
    """On a connection that there is: a deadline may pass before."""
    assert house.unary("echo")(b"", timeout=PATIENCE) == b""
    assert code(house.unary("wait").future(b"", timeout=0.1)) == "DEADLINE_EXCEEDED"

    def has_passed() -> bool:
        if counts(house.target, "server").begun < 2:
            return False
        active = any(context.is_active() for context in house.contexts)
        return not active if house.contexts else not counts(house.target, "server").in_flight

    await_that(has_passed, "the deadline to pass at the server")
    house.gate.set()  # the server counts the call's end when its handler has left it


def cancel(house: House) -> None:
    call = house.unary("watch").future(b"")
    house.enter()
    call.cancel()


def leave(house: House) -> None:
    """Let the handler go once it can see that its call has ended."""
    house.enter()
    assert house.ended.wait(PATIENCE)
    house.gate.set()


def cancel_stream(house: House) -> None:
    call = house.stream("drip")(b"")
    assert next(call) == b"first"
    call.cancel()
    leave(house)


def drop(house: House) -> None:
    """The caller lets its call go without reading the end."""
    call = house.stream("drip")(b"")
    assert next(call) == b"first"
    del call
    gc.collect()
    leave(house)


def close(house: House) -> None:
    call = house.unary("watch").future(b"")
    house.enter()
    house.channel.close()
    assert code(call) == "CANCELLED"


def one_too_many(house: House) -> None:
    first = house.unary("wait").future(b"")
    house.enter()
    assert code(house.unary("echo").future(b"")) == "RESOURCE_EXHAUSTED"
    house.gate.set()
    assert first.result(PATIENCE) == b""


@dataclass(frozen=True)
class Scene:
    play: Callable[[House], Any]
    channel: dict[str, int]
    server: dict[str, int]
    refused: int = 0
    connections: int = 1
    settings: dict[str, Any] = field(default_factory=dict)


SCENES = {
    "every kind": Scene(every_kind, {"OK": 4}, {"OK": 4}),
    "abort": Scene(unary("abort"), {"NOT_FOUND": 1}, {"NOT_FOUND": 1}),
    "no such method": Scene(unary("nothing"), {"UNIMPLEMENTED": 1}, {"UNIMPLEMENTED": 1}),
    "large": Scene(unary("echo", bytes(1 << 20)), OK, OK),
    "too large": Scene(
        unary("echo", bytes(5 << 20)), {"RESOURCE_EXHAUSTED": 1}, {"RESOURCE_EXHAUSTED": 1}
    ),
    "deadline": Scene(
        deadline, {"OK": 1, "DEADLINE_EXCEEDED": 1}, {"OK": 1, "DEADLINE_EXCEEDED": 1}
    ),
    "cancel": Scene(cancel, CANCELLED, CANCELLED),
    "cancelled stream": Scene(cancel_stream, CANCELLED, CANCELLED),
    "dropped stream": Scene(drop, CANCELLED, CANCELLED),
    "close": Scene(close, CANCELLED, CANCELLED, connections=0),
    "maximum_concurrent_rpcs": Scene(
        one_too_many,
        {"OK": 1, "RESOURCE_EXHAUSTED": 1},
        {"OK": 1, "RESOURCE_EXHAUSTED": 1},
        settings={"maximum_concurrent_rpcs": 1},
    ),
    "max_calls_per_user": Scene(
        one_too_many,
        {"OK": 1, "RESOURCE_EXHAUSTED": 1},
        OK,
        refused=1,
        settings={"options": [("localrpc.max_calls_per_user", 1)]},
    ),
}


@pytest.mark.parametrize("name", SCENES)
def test_both_sides_count_the_status_that_the_caller_sees(target: str, name: str) -> None:
    scene = SCENES[name]
    with House(target, **scene.settings) as house:
        scene.play(house)
        server = expect(
            target, "server", ended=scene.server, in_flight=0, refused=scene.refused, streams=0
        )
        channel = expect(target, "channel", ended=scene.channel, in_flight=0, streams=0)
        for side in (server, channel):
            assert side.begun == sum(side.ended) == side.latency.calls
            assert (side.waiting, side.connected) == (0, 1)
            await_that(
                lambda: counts(target, "server").connections == scene.connections,
                "the server to notice the end of the connection",
            )
            assert 0 < side.seconds < PATIENCE * 4
            assert side.failed == sum(
                calls for code, calls in statuses(side).items() if code != "OK"
            )
        assert (channel.refused, channel.begun) == (0, server.begun + server.refused)


def test_an_answer_that_is_too_large_is_resource_exhausted(target: str) -> None:
    """At the client, whatever its status was: the server may have sent all of it."""
    with House(target, channel_options=[("grpc.max_receive_message_length", 100)]) as house:
        for size in (200, 200_000):  # in one frame, and in several
            call = house.unary("echo").future(bytes(size), timeout=PATIENCE)
            assert code(call) == "RESOURCE_EXHAUSTED"
        expect(target, "channel", ended={"RESOURCE_EXHAUSTED": 2}, in_flight=0)


def test_what_one_side_sends_the_other_receives(target: str) -> None:
    with House(target) as house:
        every_kind(house)
        server = expect(target, "server", in_flight=0, begun=4)
        sent = {"frames_in": server.frames_out, "bytes_in": server.bytes_out}
        expect(target, "channel", frames_out=server.frames_in, bytes_out=server.bytes_in, **sent)
        assert server.bytes_in > server.frames_in >= 4
        assert server.bytes_out > server.frames_out >= 4


@pytest.mark.parametrize("kind", ["shm-eventfd", "unix"])
def test_asyncio_counts_the_same(kind: str, runtime_directory: str) -> None:
    target = fresh_target(kind, runtime_directory)

    async def failing(call: Any) -> str:
        with pytest.raises(grpc.RpcError) as caught:
            await call
        error: Any = caught.value
        return str(error.code().name)

    async def play() -> None:
        async with aio_house(target) as (handlers, channel):
            unary = channel.unary_unary
            assert await unary("/house/echo")(b"x") == b"x"
            assert len([each async for each in channel.unary_stream("/house/count")(b"3")]) == 3
            assert await channel.stream_unary("/house/length")(iter([b"ab"])) == b"2"
            both = channel.stream_stream("/house/back")(iter([b"a", b"b"]))
            assert [each async for each in both] == [b"a", b"b"]
            assert await failing(unary("/house/abort")(b"")) == "NOT_FOUND"
            late = unary("/house/stuck")(b"", timeout=0.1)
            assert await failing(late) == "DEADLINE_EXCEEDED"
            handlers.begun.clear()
            cancelled = unary("/house/stuck")(b"")
            await handlers.begun.wait()
            cancelled.cancel()
            endless = channel.unary_stream("/house/endless")(b"")
            await endless.read()
            assert [counts(target, role).streams for role in ("channel", "server")] == [1, 1]
            endless.cancel()
            while counts(target, "server").in_flight or counts(target, "channel").in_flight:
                await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(play(), PATIENCE))
    ended = {"OK": 4, "NOT_FOUND": 1, "DEADLINE_EXCEEDED": 1, "CANCELLED": 2}
    for role in ("channel", "server"):
        counted = expect(target, role, ended=ended, in_flight=0, streams=0, connected=1)
        assert counted.begun == counted.latency.calls == 8


def test_calls_wait_while_no_thread_is_free(one_target: str) -> None:
    with House(one_target, workers=1) as house:
        first = house.unary("wait").future(b"")
        house.enter()
        second = house.unary("wait").future(b"")
        expect(one_target, "server", in_flight=2, waiting=1)
        expect(one_target, "channel", in_flight=2, waiting=0)
        house.gate.set()
        assert first.result(PATIENCE) == second.result(PATIENCE) == b""
        expect(one_target, "server", in_flight=0, waiting=0, ended={"OK": 2})


def test_a_stream_is_one_while_it_is_open(one_target: str) -> None:
    with House(one_target) as house:
        call = house.stream("drip")(b"")
        assert next(call) == b"first"
        for role in ("channel", "server"):
            expect(one_target, role, in_flight=1, streams=1, ended={})
        waiting = house.unary("wait").future(b"")
        expect(one_target, "server", in_flight=2, streams=1)
        house.gate.set()
        assert list(call) == [b"second"]
        waiting.result(PATIENCE)
        for role in ("channel", "server"):
            expect(one_target, role, in_flight=0, streams=0, ended={"OK": 2})


def test_a_call_lasts_until_its_handler_has_left_it(one_target: str) -> None:
    with House(one_target) as house:
        call = house.stream("drip")(b"")
        house.enter()
        call.cancel()
        channel = expect(one_target, "channel", in_flight=0, ended=CANCELLED)
        assert house.ended.wait(PATIENCE)
        server = counts(one_target, "server")
        assert (server.in_flight, server.failed, server.latency.calls) == (1, 0, 0)
        house.gate.set()
        server = expect(one_target, "server", in_flight=0, ended=CANCELLED)
        for side in (channel, server):
            assert side.latency.percentile(50) == pytest.approx(side.seconds, rel=1 / 8)


def test_a_killed_server_is_unavailable_and_its_page_goes(one_target: str) -> None:
    def of(pid: int) -> list[localrpc.observe.Process]:
        return [each for each in localrpc.observe.processes() if each.pid == pid]

    with processes.server(one_target) as server, dial(one_target) as channel:
        call = channel.unary_unary("/station/hold").future(b"", timeout=PATIENCE)
        server.hear("entered", "hold")
        server.stop()  # a page needs nothing of its process
        (process,) = of(server.pid)
        assert process.state == "T"
        (endpoint,) = process.page.endpoints
        assert (endpoint.role, endpoint.target, endpoint.live) == ("server", one_target, True)
        assert (endpoint.counts.in_flight, endpoint.counts.begun) == (1, 1)
        server.kill()
        assert code(call) == "UNAVAILABLE"
        expect(one_target, "channel", ended={"UNAVAILABLE": 1}, in_flight=0)
        server.join()
        assert of(server.pid) == []


def test_a_killed_client_has_cancelled_its_calls(one_target: str) -> None:
    journal = Journal()
    station = Station(one_target, journal)
    try:
        with processes.client(one_target, "unary_in_its_handler") as client:
            client.hear("begun")
            journal.hear("entered", "hold")
            client.kill()
        # Beside the call, a stage has made one to see that the server is there.
        expect(one_target, "server", ended={"OK": 1, "CANCELLED": 1}, in_flight=0, connections=0)
    finally:
        station.stop()


def test_a_stopping_server_refuses_calls(one_target: str) -> None:
    with House(one_target) as house:
        call = house.unary("wait").future(b"")
        house.enter()
        house.server.stop(PATIENCE)
        assert code(house.unary("echo").future(b"", timeout=PATIENCE)) == "UNAVAILABLE"
        house.gate.set()
        assert call.result(PATIENCE) == b""
        server = expect(one_target, "server", in_flight=0, ended={"OK": 1})
        assert server.begun == 1


def test_numbers_grow_while_connections_come_and_go(one_target: str) -> None:
    """A new connection goes on with the numbers of the one before."""
    before: dict[str, Counts] = {}
    with dial(one_target) as channel:
        for number in range(1, 4):
            with House(one_target):
                echo = channel.unary_unary("/house/echo")
                assert echo(b"", timeout=PATIENCE) == b""
                for role in ("channel", "server"):
                    expect(one_target, role, in_flight=0, connected=number)
                    now = counts(one_target, role)
                    assert statuses(now)["OK"] == number
                    if role in before:
                        since = now.since(before[role])
                        assert min(since[4:12]) >= 0
                        assert (since.connected, since.ended[0]) == (1, 1)
                        assert sum(since.latency.counted) == sum(since.ended)
                    before[role] = now
    assert len([each for each in localrpc.stats() if each.target == one_target]) == 2


def test_connections_to_one_target_are_added_up(one_target: str) -> None:
    with House(one_target) as house, dial(one_target) as second, dial(one_target) as third:
        for channel in (house.channel, second, third):
            channel.unary_unary("/house/echo")(b"", timeout=PATIENCE)
        expect(one_target, "channel", connections=3, begun=3, ended={"OK": 3})
        expect(one_target, "server", connections=3, begun=3, ended={"OK": 3})


def test_a_channel_that_is_gone_is_not_live(one_target: str) -> None:
    def live() -> dict[str, bool]:
        return {each.role: each.live for each in localrpc.stats() if each.target == one_target}

    with House(one_target):
        channel = dial(one_target)
        channel.unary_unary("/house/echo")(b"", timeout=PATIENCE)
        assert live() == {"channel": True, "server": True}
        channel.close()
        del channel

        def gone() -> bool:
            gc.collect()
            return not live()["channel"]

        await_that(gone, "the channel's engine to be freed")
        assert live() == {"channel": False, "server": True}
        assert statuses(counts(one_target, "channel")) == {"OK": 1}
        assert counts(one_target, "channel").connections == 0


def test_a_call_that_finds_no_server_is_none(one_target: str) -> None:
    with dial(one_target) as channel:
        echo = channel.unary_unary("/house/echo")
        assert code(echo.future(b"", timeout=PATIENCE)) == "UNAVAILABLE"
    assert [each for each in localrpc.stats() if each.target == one_target] == []

"""What a client sees of a server behind a proxy, and that server of its client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import threading
from collections.abc import Callable, Iterable, Iterator
from queue import Queue
from typing import Any

import grpc
import pytest
from grpc import aio

import localrpc.aio
from localrpc.proxy.metadata import passed_on
from localrpc.proxy.process import Settings, proxying
from tests.conftest import fresh_target
from tests.proxy.conftest import PAIRS, Bridge, Loop, bridged
from tests.rpc.house import PATIENCE, House, await_that

ANY_SIZE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
LOCAL_BEHIND = [pair for pair in PAIRS if pair[1] != "grpc"]
"""A grpcio server itself takes a cancelled stream of requests for a complete one, now and then."""


# ---- messages ----


def test_calls_of_all_kinds_are_answered(bridge: Bridge) -> None:
    channel = bridge.channel
    assert bridge.unary("/house/echo", b"one").result() == b"one"
    assert bridge.unary("/house/echo", b"").result() == b""
    many = channel.unary_stream("/house/count")(b"100", timeout=PATIENCE)
    assert list(many) == [b"%d" % number for number in range(100)]
    requests = (b"x" * size for size in range(100))
    assert channel.stream_unary("/house/length")(requests, timeout=PATIENCE) == b"4950"
    assert channel.stream_unary("/house/length")(iter(()), timeout=PATIENCE) == b"0"
    sent = [b"%d" % number for number in range(100)]
    assert list(channel.stream_stream("/house/mirror")(iter(sent), timeout=PATIENCE)) == sent
    assert list(channel.stream_stream("/house/mirror")(iter(()), timeout=PATIENCE)) == []


def test_each_message_is_passed_on_at_once(bridge: Bridge) -> None:
    requests: Queue[bytes | None] = Queue()
    call = bridge.channel.stream_stream("/house/mirror")(iter(requests.get, None), timeout=PATIENCE)
    for number in range(5):
        requests.put(b"%d" % number)
        assert next(call) == b"%d" % number
    requests.put(None)
    assert list(call) == []
    assert call.code() is grpc.StatusCode.OK


def test_a_server_may_speak_first(bridge: Bridge) -> None:
    requests: Queue[bytes | None] = Queue()
    call = bridge.channel.stream_stream("/behind/speaks_first")(
        iter(requests.get, None), timeout=PATIENCE
    )
    assert next(call) == b"who are you?"
    requests.put(b"Ada")
    assert next(call) == b"Ada"
    requests.put(None)
    assert list(call) == []


def test_messages_have_no_limit_but_those_of_the_two_ends(
    pair: tuple[str, str], loop: Loop, runtime_directory: str
) -> None:
    big = b"x" * (6 << 20)
    with bridged(
        loop, pair, runtime_directory, options=ANY_SIZE, client_options=ANY_SIZE
    ) as bridge:
        assert bridge.unary("/house/echo", big).result() == big
    with bridged(loop, pair, runtime_directory) as bridge:
        call = bridge.unary("/house/echo", big)
        assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # the server's 4 MiB
        call = bridge.channel.unary_stream("/behind/give")(b"1 6000000", timeout=PATIENCE)
        with pytest.raises(grpc.RpcError):
            next(call)
        assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # the client's
        assert "6000000 vs. 4194304" in call.details()


# ---- metadata ----


def by_key(pairs: Iterable[tuple[str, Any]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found


def test_metadata_are_passed_on_both_ways(bridge: Bridge) -> None:
    sent = [("a", "1"), ("b-bin", b"\0\xff"), ("a", "2"), ("authorization", "Bearer x")]
    initial = [("c", "3"), ("d-bin", bytes(range(256))), ("c", "4")]
    trailing = [("e", "5"), ("e", "6"), ("f-bin", b""), ("grpc-status-details-bin", b"\1\2")]
    request = pickle.dumps((initial, trailing))
    call = bridge.unary("/behind/metadata", request, metadata=sent)
    is_local = not bridge.house.target.startswith("grpc:")
    came = pickle.loads(call.result())
    (agent,) = (value for key, value in came if key == "user-agent")
    assert agent.startswith("grpc-python-" + ("localrpc" if is_local else "asyncio"))
    # The values of one key stay in order; grpc.aio and HTTP/2 do not keep the order of keys.
    assert by_key(pair for pair in came if pair[0] != "user-agent") == by_key(sent)
    assert by_key(call.initial_metadata()) == by_key(initial)
    assert by_key(call.trailing_metadata()) == by_key(trailing)


@pytest.mark.parametrize(
    "key",
    [
        *("connection", "te", "transfer-encoding", "content-type", "host", "user-agent"),
        *("grpc-timeout", "grpc-encoding", "grpc-accept-encoding", "grpc-anything", ":path"),
    ],
)
def test_what_is_about_one_connection_stays(key: str) -> None:
    around = (("a", "1"), ("z-bin", b"2"))
    assert passed_on((around[0], (key, "x"), around[1])) == around


@pytest.mark.parametrize(
    "key", ["grpc-trace-bin", "grpc-status-details-bin", "grpc-retry-pushback-ms", "grpcs", "x-te"]
)
def test_what_is_between_client_and_server_travels(key: str) -> None:
    assert passed_on([(key, "x")]) == ((key, "x"),)


def test_metadata_have_no_limit_but_those_of_the_two_ends(
    pair: tuple[str, str], loop: Loop, runtime_directory: str
) -> None:
    much = [("much", "x" * 20_000)]
    request = pickle.dumps((much, much))
    wide = [("grpc.max_metadata_size", 30_000), ("grpc.absolute_max_metadata_size", 30_000)]
    with bridged(loop, pair, runtime_directory, options=wide, client_options=wide) as bridge:
        call = bridge.unary("/behind/metadata", request, metadata=much)
        assert ("much", "x" * 20_000) in pickle.loads(call.result())
        assert list(call.initial_metadata()) == much
        assert list(call.trailing_metadata()) == much
    with bridged(loop, pair, runtime_directory) as bridge:
        call = bridge.unary("/behind/metadata", request, metadata=much)
        assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "metadata size exceeds" in call.details()


@pytest.mark.parametrize("request_", [b"with", b""])
def test_initial_metadata_come_before_the_first_message(bridge: Bridge, request_: bytes) -> None:
    call = bridge.channel.unary_stream("/behind/headers_first")(request_, timeout=PATIENCE)
    assert list(call.initial_metadata()) == ([("early", "1")] if request_ else [])
    bridge.house.gate.set()
    assert list(call) == [b""]


# ---- status ----


def answers_of(call: Any) -> list[bytes]:
    """Those that come before the status, whatever that is."""
    came: list[bytes] = []
    with contextlib.suppress(grpc.RpcError):
        came.extend(call)  # the list keeps those before an error
    return came


@pytest.mark.parametrize("answers", [0, 3])
def test_a_status_is_passed_on(bridge: Bridge, answers: int) -> None:
    trailing = (("why", "because"), ("grpc-status-details-bin", b"\x08\x05"))
    for code in grpc.StatusCode:
        details = "" if code is grpc.StatusCode.OK else f"100 % of {code.name}\nü"
        request = pickle.dumps((answers, code.name, details, trailing))
        call = bridge.channel.unary_stream("/behind/status")(request, timeout=PATIENCE)
        assert answers_of(call) == [b"%d" % number for number in range(answers)]
        assert (call.code(), call.details()) == (code, details)
        assert sorted(call.trailing_metadata()) == sorted(trailing)


def test_an_exception_and_an_unknown_method_are_the_servers_own(bridge: Bridge) -> None:
    call = bridge.unary("/house/fail", b"no such thing")
    assert call.code() is grpc.StatusCode.UNKNOWN
    assert "no such thing" in call.details()
    call = bridge.unary("/house/nothing")
    assert (call.code(), call.details()) == (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


@pytest.mark.parametrize(
    ("first", "code", "answers"),
    [
        (b"refuse", grpc.StatusCode.PERMISSION_DENIED, []),
        (b"answer", grpc.StatusCode.OK, [b"enough"]),
    ],
)
def test_a_server_may_end_a_call_while_its_client_sends(
    bridge: Bridge, first: bytes, code: grpc.StatusCode, answers: list[bytes]
) -> None:
    """grpc.aio then reports INTERNAL first, half of the time."""

    def requests() -> Iterator[bytes]:
        yield first
        while True:
            yield bytes(1000)

    for _ in range(10):
        call = bridge.channel.stream_stream("/behind/enough")(requests(), timeout=PATIENCE)
        assert (answers_of(call), call.code()) == (answers, code)


def test_a_call_that_fails_at_once_is_tried_again_by_its_client(
    loop: Loop, runtime_directory: str
) -> None:
    """gRPC takes a call with headers for begun, so the proxy must not add any."""
    policy = {
        "maxAttempts": 3,
        "initialBackoff": "0.01s",
        "maxBackoff": "0.01s",
        "backoffMultiplier": 1,
        "retryableStatusCodes": ["NOT_FOUND"],
    }
    config = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})
    options = [("grpc.service_config", config)]

    def tried(*trailing: tuple[str, str]) -> list[str | bytes | None]:
        """For each attempt, how many there were before, as the client says."""
        bridge.house.attempts.clear()
        request = pickle.dumps((0, "NOT_FOUND", "", trailing))
        call = bridge.channel.unary_stream("/behind/status")(request, timeout=PATIENCE)
        assert call.code() is grpc.StatusCode.NOT_FOUND
        return bridge.house.attempts

    pair = ("grpc", "shm-eventfd")
    with bridged(loop, pair, runtime_directory, client_options=options) as bridge:
        assert tried() == [None, "1", "2"]
        assert tried(("grpc-retry-pushback-ms", "1")) == [None, "1", "2"]
        assert tried(("grpc-retry-pushback-ms", "-1")) == [None]  # the server forbids it


# ---- deadlines and cancellation ----


def test_the_remaining_time_is_the_servers_deadline(bridge: Bridge) -> None:
    left = pickle.loads(bridge.unary("/behind/left", timeout=500).result())
    assert 400 < left <= 500
    left = pickle.loads(bridge.unary("/behind/left", timeout=None).result())
    assert left > 1e6  # grpcio's number for none


def test_a_deadline_ends_the_call_on_both_sides(bridge: Bridge) -> None:
    call = bridge.unary("/house/watch", timeout=0.3)
    assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert bridge.house.ended.wait(PATIENCE)


def test_a_cancelled_call_is_cancelled_at_the_server(bridge: Bridge) -> None:
    call = bridge.unary("/house/watch")
    bridge.house.enter()
    call.cancel()
    assert bridge.house.ended.wait(PATIENCE)
    stream = bridge.channel.unary_stream("/behind/give")(b"1000000 1000", timeout=PATIENCE)
    bridge.house.ended.clear()
    assert len(next(stream)) == 1000
    stream.cancel()
    assert bridge.house.ended.wait(PATIENCE)
    assert bridge.house.taken < 1_000_000


@pytest.mark.parametrize("pair", LOCAL_BEHIND, ids="-".join)
def test_a_cancelled_upload_is_never_a_complete_one(patient: None, bridge: Bridge) -> None:
    for number in range(1, 21):
        requests: Queue[bytes | None] = Queue()
        requests.put(b"part")
        call = bridge.channel.stream_unary("/house/listen").future(iter(requests.get, None))
        bridge.house.enter()
        call.cancel()
        requests.put(None)
        assert bridge.house.ended.wait(PATIENCE)
        bridge.house.ended.clear()
        assert len(bridge.house.broken) == number


def test_a_closed_channel_ends_its_calls_at_the_server(bridge: Bridge) -> None:
    call = bridge.unary("/house/watch")
    bridge.house.enter()
    bridge.channel.close()
    assert bridge.house.ended.wait(PATIENCE)
    assert call.done()


# ---- servers that are not there ----


def test_without_a_server_calls_are_unavailable_until_there_is_one(
    pair: tuple[str, str], loop: Loop, runtime_directory: str
) -> None:
    soon = tuple((f"grpc.{which}_reconnect_backoff_ms", 100) for which in ("initial", "min", "max"))
    with bridged(loop, pair, runtime_directory, proxy_options=soon) as bridge:
        house = bridge.house
        assert bridge.unary("/house/echo", b"x").result() == b"x"
        house.server.stop(None).wait()
        call = bridge.unary("/house/echo")
        assert call.code() is grpc.StatusCode.UNAVAILABLE
        if pair[1] != "grpc":  # grpcio may have sent it before it sees the end
            assert house.target in call.details()
        with House(house.target):
            await_that(
                lambda: bridge.unary("/house/echo").code() is grpc.StatusCode.OK, "an answer"
            )


# ---- many messages, many calls ----


def blocked(bridge: Bridge, count: Callable[[], int]) -> int:
    """`count` once it stands still while other calls go through the same proxy."""
    while True:
        before = count()
        for _ in range(20):
            bridge.unary("/house/echo").result()
        if count() == before:
            return before


SIZE, MOST = 64 << 10, 500
"""Bytes of a message; how many may be between the two ends, in the windows and buffers of both
connections. 130 to 260 were seen."""


def test_a_stream_of_requests_waits_for_a_server_that_does_not_read(bridge: Bridge) -> None:
    sent, enough = 0, threading.Event()

    def requests() -> Iterator[bytes]:
        nonlocal sent
        while not enough.is_set() and sent < 3 * MOST:
            sent += 1
            yield bytes(SIZE)

    call = bridge.channel.stream_unary("/behind/take").future(requests(), timeout=PATIENCE)
    bridge.house.enter()
    assert blocked(bridge, lambda: sent) < MOST
    assert bridge.house.taken == 1
    enough.set()
    bridge.house.gate.set()
    assert int(call.result()) == sent


def test_a_stream_of_answers_waits_for_a_client_that_does_not_read(bridge: Bridge) -> None:
    request = b"%d %d" % (3 * MOST, SIZE)
    call = bridge.channel.unary_stream("/behind/give")(request, timeout=PATIENCE)
    assert len(next(call)) == SIZE
    given = blocked(bridge, lambda: bridge.house.taken)
    assert 0 < given < MOST
    for _ in range(given):
        next(call)
    await_that(lambda: bridge.house.taken > given, "the server goes on")
    call.cancel()


def test_calls_side_by_side_get_their_own_answers(bridge: Bridge) -> None:
    calls = [bridge.unary("/house/echo", b"%d" % number) for number in range(100)]
    assert [call.result() for call in calls] == [b"%d" % number for number in range(100)]


def test_a_thousand_idle_streams_take_no_thread_each(runtime_directory: str) -> None:
    front, back = (fresh_target(kind, runtime_directory) for kind in ("grpc", "shm-eventfd"))

    async def mirror(requests: Any, context: Any) -> None:
        while (request := await context.read()) is not aio.EOF:
            await context.write(request)

    async def say(call: Any) -> None:
        await call.write(b"x")
        assert await call.read() == b"x"

    async def talk() -> None:
        handlers: Any = {"mirror": grpc.stream_stream_rpc_method_handler(mirror)}
        server = localrpc.aio.server(
            handlers=[grpc.method_handlers_generic_handler("idle", handlers)]
        )
        server.add_insecure_port(back)
        await server.start()
        async with proxying(Settings(front, back)), localrpc.aio.insecure_channel(front) as channel:
            method: Any = channel.stream_stream("/idle/mirror")
            calls = [method()]
            await say(calls[0])
            before = len(os.listdir("/proc/self/task"))
            calls += [method() for _ in range(999)]
            await asyncio.gather(*map(say, calls[1:]))
            assert len(os.listdir("/proc/self/task")) < before + 20
            await asyncio.gather(*map(say, calls[::100]))
        await server.stop(None)

    asyncio.run(talk())

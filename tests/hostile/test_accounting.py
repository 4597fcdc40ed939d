"""What a peer makes this side keep is charged what it costs, and none of it stays.

Invariant: at any time the sum of what is kept is what is charged (`miscounted` is 0),
it is bounded by the window and the user's limit, and it is 0 once the peer has gone.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from localrpc._core import Io, ffi, lib
from localrpc.transports import Connection
from tests.concurrency.engines import figures
from tests.conftest import fresh_target
from tests.hostile import rules
from tests.hostile.raw import RawClient, raw_client
from tests.hostile.rules import SLOT
from tests.hostile.test_rules import ServerPeer
from tests.hostile.test_servers import Act, server
from tests.peers.journal import PATIENCE
from tests.peers.station import ANY_SIZE
from tests.rpc.house import House, await_that, dial

MIB = 1 << 20
LIMIT = 1 * MIB
PLAIN = rules.MESSAGE | rules.END


@pytest.fixture(params=["shm-eventfd", "unix"])
def target(request: pytest.FixtureRequest, runtime_directory: str) -> str:
    return fresh_target(request.param, runtime_directory)


@pytest.fixture
def house(target: str) -> Iterator[House]:
    """One worker, which is busy, and a user's limit of 1 MiB."""
    options = [("localrpc.max_memory_per_user", LIMIT)]
    with House(target, options=options, workers=1) as one:
        busy = one.channel.unary_unary("/house/wait").future(b"", timeout=10 * PATIENCE)
        assert one.entered.acquire(timeout=PATIENCE)
        yield one
        one.gate.set()
        busy.result(timeout=PATIENCE)
        one.channel.close()
        await_that(lambda: figures(one.server).user_bytes == 0, "all charges to be given back")
        stats = figures(one.server)
        assert (stats.queued_bytes, stats.posted_bytes, stats.name_bytes) == (0, 0, 0)
        assert (stats.live_calls, stats.waiting_calls, stats.held_calls) == (0, 0, 0)
        assert stats.miscounted == 0


def send(
    client: RawClient,
    kind: int,
    payload: bytes,
    flags: int = 0,
    call: int = SLOT,
    heard: list[bytes] | None = None,
) -> bool:
    """Return False once the server stops reading or closes; add texts of resets to `heard`."""
    for _ in range(200):
        result = client.send(kind, payload, flags=flags, call=call)
        if result:
            return result == 1
        for _ in range(100):
            if not hear(client, 0.01, heard):
                break
    return False


def hear(client: RawClient, patience: float, heard: list[bytes] | None) -> bool:
    if client.receive(patience) != 1:
        return False
    if client.io.raw.kind == rules.RESET and heard is not None:
        heard.append(client.io.buf[4 : client.io.raw.size])
    return True


@pytest.mark.parametrize("size", [0, 1, 100])
def test_messages_are_charged_what_they_cost(house: House, size: int) -> None:
    with raw_client(house.target) as client:
        client.name("/house/consume")
        before = figures(house.server).user_bytes
        send(client, rules.OPEN, rules.opening())
        for _ in range(1000):
            assert send(client, rules.MESSAGE_FRAME, bytes(size), rules.MESSAGE)
        await_that(
            lambda: figures(house.server).user_bytes >= before + 1000 * (64 + size), "the charge"
        )
        stats = figures(house.server)
        assert stats.user_bytes <= before + 1000 * (64 + size) + 1000
        assert stats.miscounted == 0


def test_empty_messages_of_many_calls_are_bounded_by_the_users_limit(house: House) -> None:
    """Each call may have a window's worth: 64 calls, 4 MiB each."""
    with raw_client(house.target) as client:
        client.name("/house/consume")
        heard: list[bytes] = []
        for slot in range(64):
            call = SLOT + slot
            assert send(client, rules.OPEN, rules.opening(), 0, call, heard)
            for _ in range(1000):
                assert send(client, rules.MESSAGE_FRAME, b"", rules.MESSAGE, call, heard)
        while not heard:
            assert hear(client, PATIENCE, heard)
        assert b"localrpc.max_memory_per_user" in heard[0]
        assert b"%d is the most" % LIMIT in heard[0]
        stats = figures(house.server)
        assert stats.user_bytes <= LIMIT + 1000
        assert stats.miscounted == 0


def test_calls_that_wait_are_charged_though_they_bring_nothing(house: House) -> None:
    with raw_client(house.target) as client:
        client.name("/house/echo")
        heard: list[bytes] = []
        for slot in range(10_000):
            assert send(client, rules.OPEN, rules.opening(), PLAIN, SLOT + slot, heard)
        while figures(house.server).waiting_calls + len(heard) < 10_000:
            assert hear(client, PATIENCE, heard)
        stats = figures(house.server)
        assert len(heard) > 5_000
        assert LIMIT - 1000 < stats.user_bytes <= LIMIT + 1000
        assert stats.miscounted == 0


def test_names_of_methods_are_charged(house: House) -> None:
    with raw_client(house.target) as client:
        before = figures(house.server).user_bytes
        for number in range(1, 6):
            payload = rules.method(number, b"/" + b"x" * 8000)
            assert send(client, rules.METHOD, payload, call=0)
        await_that(lambda: figures(house.server).user_bytes > before + 5 * 8000, "the charge")
        assert figures(house.server).miscounted == 0


def test_unread_answers_are_charged(target: str) -> None:
    with House(target) as house, raw_client(target) as client:
        client.name("/house/echo")
        for slot in range(300):
            message = rules.opening(rest=bytes(16_000))
            if not send_now(client, rules.OPEN, message, PLAIN, SLOT + slot):
                break
        await_that(lambda: figures(house.server).posted_bytes > 500_000, "answers to be posted")
        stats = figures(house.server)
        assert stats.user_bytes >= stats.posted_bytes
        assert stats.posted_bytes < 2 * MIB
        assert stats.miscounted == 0
        client.close()
        await_that(lambda: figures(house.server).user_bytes == 0, "the charges to be given back")


def test_calls_of_a_client_that_does_not_read_are_counted_separately(target: str) -> None:
    places, beside = 150, 145
    options = [("localrpc.max_waiting_calls_per_user", places)]
    with House(target, options=options, workers=1) as house, raw_client(target) as client:
        wait, echo = (house.channel.unary_unary(f"/house/{name}") for name in ("wait", "echo"))
        client.name("/house/echo")
        busy = wait.future(b"", timeout=PATIENCE)
        house.enter()
        message = rules.opening(rest=bytes(16_000))
        for slot in range(places):
            assert send_now(client, rules.OPEN, message, PLAIN, SLOT + slot)
        await_that(lambda: figures(house.server).waiting_calls == places, "all to wait")
        house.gate.set()
        await_that(lambda: figures(house.server).held_calls > places - beside, "some to be held")
        busy.result()
        await_that(lambda: figures(house.server).waiting_calls == 0, "none to wait")

        house.gate.clear()
        busy = wait.future(b"", timeout=PATIENCE)
        house.enter()
        calls = [echo.future(b"x", timeout=PATIENCE) for _ in range(beside)]
        await_that(lambda: figures(house.server).waiting_calls == beside, "the others to wait")
        assert figures(house.server).held_calls > places - beside
        house.gate.set()
        assert {call.result() for call in calls} == {b"x"}


def send_now(client: RawClient, kind: int, payload: bytes, flags: int, call: int) -> bool:
    """As send(), without reading an answer."""
    return any(client.send(kind, payload, flags=flags, call=call) for _ in range(20_000))


def test_a_client_charges_what_it_has_not_read(target: str) -> None:
    ready: list[Any] = []

    def act(connection: Connection, call: int) -> None:
        peer = ServerPeer(connection, call)
        for _ in range(1000):
            peer.put(rules.MESSAGE_FRAME, b"", rules.MESSAGE)
        ready.append(peer)

    with server(target, act), dial(target) as channel:
        call = channel.unary_stream("/a/b")(b"", timeout=PATIENCE)
        channel.subscribe(lambda state: None)  # a thread reads, but not this call
        await_that(lambda: figures(channel).queued_bytes >= 64_000, "the charge")
        assert figures(channel).queued_bytes < 70_000
        assert figures(channel).miscounted == 0
        call.cancel()
        await_that(lambda: figures(channel).queued_bytes == 0, "it to be given back")


def begin_a_message_of(size: int, frames: list[int]) -> Act:
    """Say so to the first call, and answer the next; `frames` gets what comes until then."""

    def act(connection: Connection, call: int) -> None:
        peer = ServerPeer(connection, call)
        peer.put(rules.MESSAGE_FRAME, rules.u64(size), rules.BIG)
        peer.put(rules.DATA, b"x")
        io = Io()
        while lib.lr_link_recv(connection.link.raw, io.raw, 0) == 1:
            frames.append(io.raw.kind)
            if io.raw.kind == rules.OPEN:
                put_answer = ServerPeer(connection, io.raw.call)
                put_answer.put(rules.STATUS, rules.status(rest=b"well"), rules.MESSAGE)
                return

    return act


def test_a_message_that_finds_no_memory_ends_its_call_alone(target: str) -> None:
    frames: list[int] = []
    act = begin_a_message_of(1 << 50, frames)
    with server(target, act), dial(target, ANY_SIZE) as channel:
        call = channel.unary_stream("/a/b")(b"", timeout=PATIENCE)
        with pytest.raises(grpc.RpcError):
            next(call)
        assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, call.details()
        assert "no memory" in call.details()
        assert channel.unary_unary("/a/b")(b"", timeout=PATIENCE) == b"well"
    assert rules.RESET in frames


def test_without_a_limit_a_message_of_any_size_may_come(target: str) -> None:
    """It is kept until it is read: its memory is reserved, and mostly never touched."""
    frames: list[int] = []
    act = begin_a_message_of(600 * MIB, frames)
    with server(target, act), dial(target, ANY_SIZE) as channel:
        large = channel.unary_stream("/a/b")(b"", timeout=PATIENCE)
        assert channel.unary_unary("/a/b")(b"", timeout=PATIENCE) == b"well"
        assert large.is_active()
        large.cancel()
    assert rules.RESET not in frames


def test_each_user_has_places_of_its_own_for_calls_that_wait() -> None:
    """Over the core alone, because a test has one user only."""
    engine = lib.lr_engine_new(lib.LR_SERVER, 4 * MIB, -1, -1)
    lib.lr_limit_waiting(engine, 10)
    lib.lr_limit_users(engine, 1000, 64 * MIB)
    ends = [_end_of_a_pair(engine, uid) for uid in (1000, 2000)]
    service = threading.Thread(target=_serve, args=(engine,))
    try:
        for link in ends:
            _put(link, rules.METHOD, rules.method(1), 0, 0)
            for slot in range(20):
                _put(link, rules.OPEN, rules.opening(rest=b"x"), PLAIN, SLOT + slot)
        service.start()
        stats = ffi.new("struct lr_stats *")

        def waiting() -> int:
            lib.lr_engine_stats(engine, stats)
            return int(stats.waiting_calls)

        await_that(lambda: waiting() == 20, "ten of each to wait")
        assert stats.miscounted == 0
        io = Io()
        for link in ends:
            assert lib.lr_link_recv(link, io.raw, 0) == 1
            assert io.raw.kind == rules.RESET
            text = io.buf[4 : io.raw.size].decode()
            assert "10 calls that wait" in text
            assert "localrpc.max_waiting_calls_per_user" in text
    finally:
        lib.lr_stop(engine)
        lib.lr_engine_close(engine)
        service.join(PATIENCE)
        lib.lr_engine_free(engine)
        for link in ends:
            lib.lr_link_close(link)


def _end_of_a_pair(engine: Any, uid: int) -> Any:
    ours, theirs = socket.socketpair()
    error = ffi.new("char[]", 200)
    link = lib.lr_stream_open(theirs.detach(), -1, -1, error, 200)
    assert lib.lr_engine_admit(engine, link, 4 * MIB, uid) >= 0
    return lib.lr_stream_open(ours.detach(), -1, -1, error, 200)


def _serve(engine: Any) -> None:
    io = Io()
    while lib.lr_service(engine, io.raw) != lib.LR_K_STOP:
        pass


def _put(link: Any, kind: int, payload: bytes, flags: int, call: int) -> None:
    assert lib.lr_link_send(link, kind, flags, call, payload, len(payload)) == 1

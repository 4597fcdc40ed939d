"""Clients that break the protocol after a good greeting: their connection ends, no other.

Invariant: whatever a client sends, the server answers by the protocol or ends
that connection; every other call goes on, and what the server keeps is bounded.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import pytest

from localrpc._core import lib
from tests.concurrency.engines import figures, live_calls, queued_bytes
from tests.conftest import DISTINCT, FULL
from tests.hostile.raw import SLOT, RawClient, header, opening, raw_client, raw_socket
from tests.peers.aio_station import AioStation
from tests.peers.journal import Journal
from tests.peers.scenes import Stage, await_that
from tests.peers.station import Station

MIB = 1 << 20
MOST_WAITING = 10_000
"""The default of localrpc.max_waiting_calls_per_user."""
MOST_CALLS = 16_384
"""The default of localrpc.max_calls_per_user, which counts for a server whose calls never wait."""
FLOODED = DISTINCT if FULL else ["shm-eventfd", "unix", "sysvmq", "file"]
RINGS = [kind for kind in DISTINCT if kind.startswith("shm")]
MESSAGE, END, BIG = lib.LR_F_MESSAGE, lib.LR_F_END, lib.LR_F_BIG
OPEN, DATA, METHOD = lib.LR_T_OPEN, lib.LR_T_DATA, lib.LR_T_METHOD


def stream(client: RawClient, method: str = "consume") -> None:
    """A request stream, just opened."""
    client.name(f"/station/{method}")
    assert client.send(OPEN, opening()) == 1


def in_stream(kind: int, payload: bytes = b"", flags: int = 0) -> Callable[[RawClient], None]:
    def act(client: RawClient) -> None:
        stream(client)
        client.send(kind, payload, flags=flags)

    return act


def after_end(client: RawClient) -> None:
    stream(client, "reads_nothing")
    client.send(lib.LR_T_MESSAGE, b"x", flags=MESSAGE | END)
    client.send(lib.LR_T_MESSAGE, b"y", flags=MESSAGE)


def twice(client: RawClient) -> None:
    stream(client, "reads_nothing")
    client.send(OPEN, opening())


def named_twice(client: RawClient) -> None:
    client.name("/station/echo")
    client.name("/station/hold")


def inside_a_large_message(client: RawClient) -> None:
    stream(client, "reads_nothing")
    client.send(lib.LR_T_MESSAGE, struct.pack("<Q", 100_000), flags=BIG)
    client.send(lib.LR_T_MESSAGE, b"x", flags=MESSAGE)


def beyond_its_size(client: RawClient) -> None:
    stream(client, "reads_nothing")
    client.send(lib.LR_T_MESSAGE, struct.pack("<Q", 40_000), flags=BIG)
    client.send(DATA, bytes(40_001))


def bad_metadata_length(client: RawClient) -> None:
    client.name("/station/echo")
    client.send(OPEN, struct.pack("<IIq", 1, 1000, -1))


MISTAKES: dict[str, Callable[[RawClient], object]] = {
    "a second HELLO": lambda client: client.send(lib.LR_T_HELLO, call=0),
    "a type that is not": lambda client: client.send(77),
    "type 0": lambda client: client.send(0),
    "STATUS": lambda client: client.send(lib.LR_T_STATUS, bytes(4)),
    "HEADERS": lambda client: client.send(lib.LR_T_HEADERS),
    "GOAWAY": lambda client: client.send(lib.LR_T_GOAWAY, call=0),
    "OPEN without a method": lambda client: client.send(OPEN, opening(9)),
    "OPEN cut short": lambda client: client.send(OPEN, b"short"),
    "OPEN with more metadata than there is": bad_metadata_length,
    "METHOD cut short": lambda client: client.send(METHOD, b"x", call=0),
    "METHOD with a number out of bounds": lambda client: client.name("/a/b", 1 << 20),
    "METHOD twice": named_twice,
    "a call's id twice": twice,
    "a message after END": after_end,
    "a message in a message": inside_a_large_message,
    "DATA without a message": in_stream(DATA, b"x"),
    "DATA beyond its size": beyond_its_size,
    "a large message without a size": in_stream(lib.LR_T_MESSAGE, b"", BIG),
    "a large message of nothing": in_stream(lib.LR_T_MESSAGE, bytes(8), BIG),
    "a large message beyond all bounds": in_stream(lib.LR_T_MESSAGE, b"\xff" * 8, BIG),
    "CREDIT of nine bytes": in_stream(lib.LR_T_CREDIT, bytes(9)),
    "too much CREDIT": in_stream(lib.LR_T_CREDIT, b"\xff" * 8),
    "RESET without a code": in_stream(lib.LR_T_RESET),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_that_connection_only(
    target: str, bystander: Stage, mistake: str, caplog: pytest.LogCaptureFixture
) -> None:
    with raw_client(target) as client:
        MISTAKES[mistake](client)
        client.expect_end()
    await_that(lambda: "broke the protocol" in caplog.text, "a word in the log")


IDS = (0, 1, 5, SLOT, SLOT + 70_000, SLOT + (1 << 31), (1 << 64) - 1)


@pytest.mark.parametrize("call", IDS, ids=hex)
def test_frames_for_calls_that_are_not_live_are_dropped(
    target: str, bystander: Stage, call: int
) -> None:
    with raw_client(target) as client:
        for kind in (lib.LR_T_MESSAGE, DATA, lib.LR_T_CREDIT, lib.LR_T_RESET):
            flags = MESSAGE if kind == lib.LR_T_MESSAGE else 0
            assert client.send(kind, bytes(8), flags=flags, call=call) == 1
        client.name("/station/echo")
        flags = MESSAGE | END
        assert client.send(OPEN, opening(message=b"x"), flags=flags) == 1
        assert client.receive() == 1
        assert client.io.raw.kind == lib.LR_T_STATUS


@pytest.mark.parametrize("call", [0, 1, SLOT + 65_536, (1 << 64) - 1], ids=hex)
def test_a_call_with_an_id_out_of_bounds_ends_its_connection(
    target: str, bystander: Stage, call: int
) -> None:
    with raw_client(target) as client:
        client.name("/station/echo")
        client.send(OPEN, opening(message=b"x"), flags=MESSAGE | END, call=call)
        client.expect_end()


def random_frames(client: RawClient, draw: random.Random) -> None:
    """Frames of every type with sizes, flags and ids that are often almost right."""
    client.name("/station/echo", 1)
    client.name("/station/consume", 2)
    client.name("/station/mirror", 3)
    for _ in range(200):
        kind = draw.choice((0, 1, 2, 3, 3, 3, 4, 4, 4, 5, 5, 6, 7, 8, 9, 9, 10, 11, 200))
        call = SLOT * draw.randrange(3) + draw.choice((0, 1, 2, 3, 70_000))
        flags = draw.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 255))
        payload = draw.randbytes(draw.choice((0, 4, 8, 8, 9, 16, 100, 40_000)))
        if kind == 3 and draw.random() < 0.9:
            payload = opening(draw.randrange(1, 4), message=payload[:100])
        if flags & 4 and len(payload) >= 8 and draw.random() < 0.9:
            payload = payload[:-8] + struct.pack("<Q", draw.randrange(1, 1 << 22))
        if client.send(kind, payload, flags=flags, call=call) < 0:
            return


@pytest.mark.parametrize("seed", range(8))
def test_random_frames_harm_no_other_client(
    target: str, station: Station, bystander: Stage, seed: int
) -> None:
    before = live_calls(station.server)
    draw = random.Random(seed)
    for _ in range(5):
        with raw_client(target) as client:
            random_frames(client, draw)
    await_that(lambda: live_calls(station.server) == before, "their calls to end")
    await_that(lambda: queued_bytes(station.server) == 0, "what they left to go")
    assert figures(station.server).miscounted == 0


# Only a socket accepts bytes that are not frames from a client made by hand.
@pytest.mark.parametrize("target", ["unix", "tcp"], indirect=True)
def test_random_bytes_harm_no_other_client(target: str, bystander: Stage) -> None:
    draw = random.Random(1)
    for _ in range(20):
        with raw_socket(target) as client:
            try:
                client.sock.sendall(header(7, 2, call=0) + draw.randbytes(3000))
            except (BrokenPipeError, ConnectionResetError):
                pass
            client.sock.shutdown(1)
            assert client.ended()


@pytest.mark.parametrize("target", RINGS, indirect=True)
def test_bytes_on_the_socket_of_a_ring_end_it(target: str, bystander: Stage) -> None:
    with raw_socket(target, ring=True) as client:
        client.sock.sendall(b"hello")
        assert client.ended()


@pytest.mark.parametrize("timeout", [1 << 62, (1 << 63) - 1, -(1 << 63)])
def test_an_excessive_timeout_counts_as_none(target: str, bystander: Stage, timeout: int) -> None:
    with raw_client(target) as client:
        client.name("/station/consume")
        assert client.send(OPEN, struct.pack("<IIq", 1, 0, timeout)) == 1
        assert client.send(lib.LR_T_MESSAGE, b"x", flags=MESSAGE | END) == 1
        while client.receive() == 1 and client.io.raw.kind != lib.LR_T_STATUS:
            pass
        assert client.io.buf[: client.io.raw.size] == bytes(4) + b"1"  # no trailer, one message


def test_unread_answers_are_bounded(target: str, station: Station, bystander: Stage) -> None:
    with raw_client(target) as client:
        client.name("/station/echo")
        payload = opening(message=bytes(16_000))
        sent = refused = number = 0
        while refused < 50:
            number = (number + 1) % 60_000
            call = SLOT * (1 + sent // 60_000) + number
            if client.send(OPEN, payload, flags=MESSAGE | END, call=call) == 1:
                sent += 1
                refused = 0
            else:
                refused += 1
                bystander.channel.unary_unary("/station/echo")(b"x")
            assert sent * 16_000 < 256 * MIB, "the server accepts any amount"
        # The answers that were posted, and of the requests at most as many as may wait.
        assert queued_bytes(station.server) < 2 * MIB + MOST_WAITING * (len(payload) + 512)
    await_that(lambda: queued_bytes(station.server) == 0, "what was not read to go")


def test_large_messages_that_never_come_cost_nothing(
    target: str, station: Station, bystander: Stage
) -> None:
    before = queued_bytes(station.server)
    with raw_client(target) as client:
        client.name("/station/reads_nothing")
        for slot in range(5):
            assert client.send(OPEN, opening(), call=SLOT + slot) == 1
            size = struct.pack("<Q", 1 << 40)
            assert client.send(lib.LR_T_MESSAGE, size, flags=BIG, call=SLOT + slot) == 1
        assert bystander.channel.unary_unary("/station/echo")(b"x") == b"x"
        assert queued_bytes(station.server) < before + 5 * 1024
        # The first byte asks for the memory, which the call does not get, and ends for it.
        assert client.send(DATA, b"x") == 1
        while client.receive() == 1 and client.io.raw.kind != lib.LR_T_RESET:
            pass
        assert (client.io.raw.kind, client.io.raw.call) == (lib.LR_T_RESET, SLOT)
    await_that(lambda: queued_bytes(station.server) == before, "what was kept to go")


@pytest.mark.parametrize("target", FLOODED, indirect=True)
def test_a_flood_of_calls_is_refused_before_it_hurts(
    target: str, station: Station, bystander: Stage, journal: Journal
) -> None:
    with raw_client(target) as client:
        client.name("/station/hold")
        bound = MOST_CALLS if isinstance(station, AioStation) else MOST_WAITING
        sent = 0
        while sent < bound + 2000:
            flags = MESSAGE | END
            if client.send(OPEN, opening(), flags=flags, call=SLOT + sent) == 1:
                sent += 1
            elif client.receive(0.01) not in (1, lib.LR_TIMEOUT):
                break
        await_that(lambda: live_calls(station.server) <= bound + 100, "the rest to be refused")
    await_that(lambda: live_calls(station.server) <= 1, "its calls to end")

"""Clients whose rings lie: what a side reads of the other's memory is checked first."""

from __future__ import annotations

import fcntl
import os
import random
from collections.abc import Callable

import pytest

from localrpc._core import lib
from tests.conftest import fresh_target
from tests.hostile.raw import HEAD, SIZE, TAIL, WAKE, RawSocket, header, raw_socket
from tests.peers.scenes import Stage


@pytest.fixture(params=["shm-eventfd", "shm-signal"])
def target(request: pytest.FixtureRequest, runtime_directory: str) -> str:
    return fresh_target(request.param, runtime_directory)


ROOM_EPOCH, EPOCH = 8, 128

LIES = {
    "half a header": (header(0, 8), 8),
    "a frame beyond the tail": (header(8, 8), 16),
    "an unaligned tail": (header(0, 8), 20),
    "more than the ring holds": (header(0, 8), SIZE + 8),
    "a tail that is far away": (header(0, 8), 1 << 63),
    "a frame that is too long": (header(0xFFFFFFFF, 5), SIZE),
    "a frame larger than the ring": (header(SIZE, 5), SIZE),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_about_the_tail_ends_the_connection(target: str, bystander: Stage, lie: str) -> None:
    with raw_socket(target, ring=True) as client:
        client.write(*LIES[lie])
        assert client.ended()


@pytest.mark.parametrize("head", [8, 1 << 40, (1 << 64) - 8], ids=hex)
def test_a_lie_about_the_head_harms_nobody_else(target: str, bystander: Stage, head: int) -> None:
    with raw_socket(target, ring=True) as client:
        client.put(HEAD, head)
        client.write(header(0, 77))
        assert client.ended()


def test_a_sleeper_that_is_nobody_gets_no_signal(target: str, bystander: Stage) -> None:
    with raw_socket(target, ring=True) as client:
        client.put(WAKE, 9 << 24 | 1, 4)
        client.write(header(0, 77))
        assert client.ended()


def make_bell_block(client: RawSocket) -> None:
    """Its flags belong to the description, which both sides have; one more ring would wait."""
    flags = fcntl.fcntl(client.bell, fcntl.F_GETFL)
    fcntl.fcntl(client.bell, fcntl.F_SETFL, flags & ~os.O_NONBLOCK)
    os.eventfd_write(client.bell, 0xFFFF_FFFF_FFFF_FFFE)


def wants_room(client: RawSocket) -> None:
    """The reader rings when it has consumed a frame."""
    client.put(ROOM_EPOCH, 1)
    client.write(header(4, lib.LR_T_RESET, 0, 5 << 32 | 5) + bytes(4))


def sleeps(client: RawSocket) -> None:
    """Whoever answers rings."""
    client.put(EPOCH, 1)
    name = b"\1\0\0\0/station/echo"
    opened = b"\1\0\0\0" + bytes(4) + b"\xff" * 8 + b"request"
    data = b""
    for type_, flags, call, payload in (
        (lib.LR_T_METHOD, 0, 0, name),
        (lib.LR_T_OPEN, lib.LR_F_MESSAGE | lib.LR_F_END, 1 << 32 | 1, opened),
    ):
        data += header(len(payload), type_, flags, call) + payload
        data += bytes(-len(data) % 8)
    client.write(data)


@pytest.mark.parametrize("ask", [wants_room, sleeps])
def test_a_bell_that_would_block_ends_its_connection_alone(
    target: str, bystander: Stage, ask: Callable[[RawSocket], None]
) -> None:
    with raw_socket(target, ring=True) as client:
        make_bell_block(client)
        ask(client)
        assert client.ended()


@pytest.mark.parametrize("seed", range(4))
def test_random_memory_harms_nobody_else(target: str, bystander: Stage, seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(10):
        with raw_socket(target, ring=True) as client:
            client.mine[4096:] = draw.randbytes(SIZE)
            for _ in range(20):
                at = draw.choice((TAIL, 8, 16, HEAD, 128, WAKE))
                client.put(at, draw.choice((0, 8, 4096, SIZE, draw.getrandbits(64))))
                client.ring()
            client.put(TAIL, draw.getrandbits(64))
            client.ring()
            client.sock.shutdown(1)
            assert client.ended()

"""Clients whose rings lie: what a side reads of the other's memory is checked first."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

import pytest

from localrpc._core import lib
from tests.conftest import fresh_target
from tests.hostile.raw import HEAD, SIZE, TAIL, WAKE, RawSocket, header, raw_socket
from tests.peers.journal import PATIENCE
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
def test_a_false_tail_ends_the_connection(target: str, bystander: Stage, lie: str) -> None:
    with raw_socket(target, ring=True) as client:
        client.write(*LIES[lie])
        assert client.ended()


@pytest.mark.parametrize("head", [8, 1 << 40, (1 << 64) - 8], ids=hex)
def test_a_false_head_harms_no_other_client(target: str, bystander: Stage, head: int) -> None:
    with raw_socket(target, ring=True) as client:
        client.put(HEAD, head)
        client.write(header(0, 77))
        assert client.ended()


def test_a_sleeper_with_an_invalid_thread_id_gets_no_signal(target: str, bystander: Stage) -> None:
    with raw_socket(target, ring=True) as client:
        client.put(WAKE, 9 << 24 | 1, 4)
        client.write(header(0, 77))
        assert client.ended()


def client_that_reads_nothing(target: str) -> AbstractContextManager[RawSocket]:
    """One whose bell is empty; without O_NONBLOCK a plain read of it waits."""
    bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_SEMAPHORE)
    return raw_socket(target, ring=True, bell=bell)


def test_a_reader_that_rings_for_room_does_not_wait(target: str, bystander: Stage) -> None:
    """It rings when it has consumed a frame, with the engine's mutex."""
    with client_that_reads_nothing(target) as client:
        os.set_blocking(client.bell, True)
        client.put(ROOM_EPOCH, 1)
        client.write(header(4, lib.LR_T_RESET, 0, 5 << 32 | 5) + bytes(4 + 4) + header(0, 77))
        assert client.ended()


def test_a_worker_that_answers_does_not_block(target: str, bystander: Stage) -> None:
    name = b"\1\0\0\0/station/echo"
    opened = b"\1\0\0\0" + bytes(4) + b"\xff" * 8 + b"request"
    data = b""
    for type_, flags, call, payload in (
        (lib.LR_T_METHOD, 0, 0, name),
        (lib.LR_T_OPEN, lib.LR_F_MESSAGE | lib.LR_F_END, 1 << 32 | 1, opened),
    ):
        data += header(len(payload), type_, flags, call) + payload
        data += bytes(-len(data) % 8)
    with ExitStack() as stack:
        for _ in range(8):  # as many as the station has workers
            client = stack.enter_context(client_that_reads_nothing(target))
            os.set_blocking(client.bell, True)
            client.put(EPOCH, 1)
            client.write(data)
            client.await_frame()
        echo = bystander.channel.unary_unary("/station/echo")
        assert echo(b"still", timeout=PATIENCE) == b"still"


@pytest.mark.parametrize(
    "bell",
    [
        lambda: os.eventfd(0, os.EFD_NONBLOCK),
        lambda: os.eventfd(1, os.EFD_NONBLOCK | os.EFD_SEMAPHORE),
    ],
    ids=["no-semaphore", "soon-empty"],
)
def test_a_bell_that_was_not_filled_harms_its_owner_alone(
    target: str, bystander: Stage, bell: Callable[[], int]
) -> None:
    with raw_socket(target, ring=True, bell=bell()) as client:
        client.put(ROOM_EPOCH, 1)
        client.write(header(4, lib.LR_T_RESET, 0, 5 << 32 | 5) + bytes(4 + 4) + header(0, 77))
        assert client.ended()


def test_a_client_may_do_to_the_servers_bell_what_it_likes(target: str, bystander: Stage) -> None:
    """No side reads or writes it here; only epoll watches it."""
    with raw_socket(target, ring=True) as client:
        os.set_blocking(client.their_bell, True)
        for _ in range(3):
            client.ring()
            os.eventfd_write(client.their_bell, 1)
        client.write(header(0, 77))
        assert client.ended()


@pytest.mark.parametrize("seed", range(4))
def test_random_memory_harms_no_other_client(target: str, bystander: Stage, seed: int) -> None:
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

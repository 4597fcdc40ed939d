"""Servers that break the protocol: the client's calls end and say so; the next one dials again."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

import grpc
import pytest

import localrpc
from localrpc._core import Io, lib
from localrpc.transports import Connection, parse_target, transport_for
from tests.hostile.raw import OPTIONS
from tests.peers.journal import PATIENCE
from tests.rpc.house import await_that, dial

Act = Callable[[Connection, int], None]


def put(connection: Connection, kind: int, payload: bytes, flags: int, call: int) -> None:
    lib.lr_link_send(connection.link.raw, kind, flags, call, payload, len(payload))


@contextmanager
def server(target: str, act: Act) -> Iterator[None]:
    """Greets one client after another; reads until a call is opened, then acts on its id."""
    address = parse_target(target)
    listener = transport_for(address.scheme).listen(address, OPTIONS)
    over = threading.Event()
    connections: list[Connection] = []

    def serve() -> None:
        io = Io()
        while not over.is_set():
            if not wait([listener.fileno()], 0.05):
                continue
            for greeting in listener.accept():
                while (connection := greeting.advance()) is None:
                    wait([greeting.fileno()], PATIENCE)
                connections.append(connection)
                while lib.lr_link_recv(connection.link.raw, io.raw, 0) == 1:
                    if io.raw.kind == lib.LR_T_OPEN:
                        act(connection, io.raw.call)
                        break

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(PATIENCE)
        listener.close()
        for connection in connections:
            connection.close()


MISTAKES: dict[str, Act] = {
    "OPEN": lambda c, call: put(c, lib.LR_T_OPEN, bytes(16), 0, call),
    "METHOD": lambda c, call: put(c, lib.LR_T_METHOD, bytes(8), 0, 0),
    "a type that is not": lambda c, call: put(c, 99, b"", 0, call),
    "STATUS cut short": lambda c, call: put(c, lib.LR_T_STATUS, b"x", 0, call),
    "a trailer longer than its frame": lambda c, call: put(
        c, lib.LR_T_STATUS, struct.pack("<I", 100), 0, call
    ),
    "DATA without a message": lambda c, call: put(c, lib.LR_T_DATA, b"x", 0, call),
    "a large message of nothing": lambda c, call: put(
        c, lib.LR_T_MESSAGE, bytes(8), lib.LR_F_BIG, call
    ),
    "too much CREDIT": lambda c, call: put(c, lib.LR_T_CREDIT, b"\xff" * 8, 0, call),
    "RESET without a code": lambda c, call: put(c, lib.LR_T_RESET, b"", 0, call),
    "a last word without a number": lambda c, call: put(c, lib.LR_T_GOAWAY, b"", lib.LR_F_END, 0),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_of_the_servers_makes_the_call_unavailable(target: str, mistake: str) -> None:
    with server(target, MISTAKES[mistake]), localrpc.insecure_channel(target) as channel:
        unary: Any = channel.unary_unary("/a/b")
        stream: Any = channel.unary_stream("/a/c")
        for call in (lambda: unary(b""), lambda: list(stream(b""))):
            with pytest.raises(grpc.RpcError) as caught:
                call()
            error: Any = caught.value
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert "broke the protocol" in error.details()


def test_an_end_right_behind_an_answer_is_seen(target: str) -> None:
    """One event may stand for both, and the end causes no other one."""

    def act(connection: Connection, call: int) -> None:
        put(connection, lib.LR_T_STATUS, bytes(4) + b"x", lib.LR_F_MESSAGE, call)
        connection.close()

    with server(target, act):
        for _ in range(10):
            states: list[grpc.ChannelConnectivity] = []
            with dial(target) as channel:
                channel.subscribe(states.append)
                assert channel.unary_unary("/a/b")(b"", timeout=PATIENCE) == b"x"
                await_that(
                    lambda: states[-1:] == [grpc.ChannelConnectivity.IDLE],  # noqa: B023
                    "IDLE after the end",
                )


def last_word(begun: int, opened: list[int]) -> Act:
    """The first connection takes up so many calls and ends; those that follow answer."""

    def act(connection: Connection, call: int) -> None:
        opened.append(call)
        if len(opened) == 1:
            put(connection, lib.LR_T_GOAWAY, struct.pack("<Q", begun), lib.LR_F_END, 0)
            connection.close()
        else:
            put(connection, lib.LR_T_STATUS, bytes(4) + b"x", lib.LR_F_MESSAGE, call)

    return act


@pytest.mark.parametrize("kind", ["unary", "future", "stream"])
def test_a_call_read_but_not_begun_is_tried_again(target: str, kind: str) -> None:
    opened: list[int] = []
    with server(target, last_word(0, opened)), dial(target) as channel:
        if kind == "stream":
            answer = list(channel.unary_stream("/a/b")(b"", timeout=PATIENCE))
        elif kind == "future":
            answer = [channel.unary_unary("/a/b").future(b"", timeout=PATIENCE).result()]
        else:
            answer = [channel.unary_unary("/a/b")(b"", timeout=PATIENCE)]
        assert answer == [b"x"]
    assert len(opened) == 2


def test_a_call_that_was_begun_is_not_tried_again(target: str) -> None:
    opened: list[int] = []
    with server(target, last_word(1, opened)), dial(target) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/a/b")(b"", timeout=PATIENCE)
        error: Any = caught.value
        assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "Socket closed")
    assert len(opened) == 1


def test_invalid_metadata_from_a_server_is_an_internal_error(target: str) -> None:
    def act(connection: Connection, call: int) -> None:
        put(connection, lib.LR_T_HEADERS, b"\xff\xff\xff", 0, call)
        put(connection, lib.LR_T_STATUS, bytes(4) + b"x", lib.LR_F_MESSAGE, call)

    with server(target, act), localrpc.insecure_channel(target) as channel:
        unary: Any = channel.unary_unary("/a/b")
        with pytest.raises(grpc.RpcError) as caught:
            unary(b"", timeout=PATIENCE)
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.INTERNAL

"""A call whose requests are a stream begins again, with all of them, if no server has seen it.

The server is made by hand: it takes some requests, then refuses the call as one that stops does.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

import localrpc.aio
from localrpc._core import Io, lib
from localrpc.calls.keeping import MOST
from localrpc.transports import Connection
from tests.conftest import fresh_target
from tests.hostile.test_servers import put, server
from tests.peers.journal import PATIENCE

REASON = "the server is shutting down"
REQUESTS = [b"one", b"", b"three" * 1000, b"four"]


class Refusing:
    """Refuses each call after so many requests, in turn, then answers one with all that it got."""

    def __init__(self, *after: int) -> None:
        self._after = list(after)
        self.got: list[bytes] = []
        self.refused = threading.Semaphore(0)

    def __call__(self, connection: Connection, call: int) -> None:
        self.got = []
        after = self._after.pop(0) if self._after else None
        for request in requests_of(connection):
            if request is not None:
                self.got.append(request)
            if after == len(self.got):
                break
        if after is None:
            answer = b"|".join(self.got)
            put(connection, lib.LR_T_STATUS, bytes(4) + answer, lib.LR_F_MESSAGE, call)
            return
        put(connection, lib.LR_T_GOAWAY, b"", 0, 0)
        text = (
            struct.pack("<I", grpc.StatusCode.UNAVAILABLE.value[0]) + b"the server is shutting down"
        )
        put(connection, lib.LR_T_RESET, text, lib.LR_F_UNSEEN, call)
        self.refused.release()


def requests_of(connection: Connection) -> Iterator[bytes | None]:
    """The requests, with a None before and after them."""
    io = Io()
    yield None
    while True:
        result = lib.LR_AGAIN
        while result == lib.LR_AGAIN:
            result = lib.lr_link_recv(connection.link.raw, io.raw, 0)
        assert result == 1
        if io.raw.kind != lib.LR_T_MESSAGE:
            continue
        if io.raw.flags & lib.LR_F_END:
            yield None
            return
        yield io.buf[: io.raw.size]


@pytest.fixture(params=["shm-eventfd", "unix"])
def target(request: pytest.FixtureRequest, runtime_directory: str) -> str:
    return fresh_target(request.param, runtime_directory)


@contextmanager
def serving(target: str, refusing: Refusing) -> Iterator[Any]:
    with server(target, refusing), localrpc.insecure_channel(target) as channel:
        yield channel


def ready_made(refusing: Refusing) -> Iterator[bytes]:
    return iter(REQUESTS)


def generated(refusing: Refusing) -> Iterator[bytes]:
    yield from REQUESTS


def late(refusing: Refusing) -> Iterator[bytes]:
    """The last ones, once the call has been refused."""
    yield from REQUESTS[:2]
    assert refusing.refused.acquire(timeout=PATIENCE)
    yield from REQUESTS[2:]


@pytest.mark.parametrize("after", [(0,), (1,), (2,), (2, 1, 0), (4,)], ids=str)
@pytest.mark.parametrize("requests", [ready_made, generated, late])
@pytest.mark.parametrize("kind", ["stream_unary", "stream_stream", "future"])
def test_all_requests_are_sent_again(
    target: str,
    kind: str,
    requests: Callable[[Refusing], Iterator[bytes]],
    after: tuple[int, ...],
) -> None:
    if requests is late and max(after) > 2:
        after = (2,)
    refusing = Refusing(*after)
    with serving(target, refusing) as channel:
        if kind == "stream_stream":
            call = channel.stream_stream("/a/b")(requests(refusing), timeout=PATIENCE)
            (answer,) = list(call)
        elif kind == "future":
            call = channel.stream_unary("/a/b").future(requests(refusing), timeout=PATIENCE)
            answer = call.result()
        else:
            answer = channel.stream_unary("/a/b")(requests(refusing), timeout=PATIENCE)
    assert answer == b"|".join(REQUESTS)


def test_more_than_is_kept_cannot_be_sent_again(target: str) -> None:
    many = [bytes(MOST // 4)] * 5
    refusing = Refusing(len(many))
    with serving(target, refusing) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.stream_unary("/a/b")(iter(many), timeout=PATIENCE)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == REASON


@pytest.mark.parametrize("after", [(0,), (1,), (2, 1, 0), (4,)], ids=str)
@pytest.mark.parametrize("kind", ["iterator", "generator", "written", "stream_stream"])
def test_all_requests_are_sent_again_by_the_asyncio_api(
    target: str, kind: str, after: tuple[int, ...]
) -> None:
    async def generate() -> AsyncIterator[bytes]:
        for request in REQUESTS:
            yield request
            await asyncio.sleep(0)

    async def main() -> Any:
        async with localrpc.aio.insecure_channel(target) as channel:
            call: Any
            if kind == "stream_stream":
                call = channel.stream_stream("/a/b")(generate(), timeout=PATIENCE)
                return await call.read()
            if kind == "written":
                call = channel.stream_unary("/a/b")(timeout=PATIENCE)
                for request in REQUESTS:
                    await call.write(request)
                await call.done_writing()
                return await call
            requests: Any = REQUESTS if kind == "iterator" else generate()
            return await channel.stream_unary("/a/b")(requests, timeout=PATIENCE)

    with server(target, Refusing(*after)):
        assert asyncio.run(main()) == b"|".join(REQUESTS)

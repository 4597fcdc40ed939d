"""What an engine has accepted arrives, though no thread enters the engine again.

A client's threads send for themselves; data for which there was no room must not wait for the
next call. The peer here is a bare link, which reads only on request.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from localrpc._core import Io, ffi, lib
from tests.links.kinds import KINDS, End, Frame, pair
from tests.peers.scenes import await_that

METHOD = b"/left/behind"
MESSAGE = b"m" * 30_000
NOW = 1


class Client:
    """An engine with one call of a client stream."""

    def __init__(self, end: End) -> None:
        self.engine = lib.lr_engine_new(lib.LR_CLIENT, 1 << 30, -1, -1)
        assert lib.lr_engine_add(self.engine, end.connection.link.take(), 1 << 30) == 0
        assert lib.lr_method(self.engine, 1, METHOD, len(METHOD)) == 0
        self._io = Io()
        raw = self._io.raw
        raw.resumed = 0
        result = lib.lr_open(self.engine, raw, 1, ffi.NULL, 0, -1, ffi.NULL, 0, 0, 0)
        assert result == 0
        self.call = raw.call

    def send(self, message: bytes) -> int:
        result: Any = lib.LR_AGAIN
        while result == lib.LR_AGAIN:
            result = lib.lr_send(self.engine, self.call, message, len(message), 0, NOW)
        return int(result)

    def send_until_full(self) -> list[int]:
        """The sizes of the messages that were accepted before not even a byte found room."""
        sizes = []
        for message in (MESSAGE, b"m"):
            while self.send(message) == 0:
                sizes.append(len(message))
        assert sizes
        return sizes

    def close(self) -> None:
        lib.lr_engine_free(self.engine)


@pytest.fixture(params=KINDS)
def ends(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Client, End]]:
    with pair(KINDS[request.param], tmp_path) as (client, server):
        server.peer = None  # its other end flushes by itself: that is what is tested
        one = Client(client)
        for type_ in (lib.LR_T_METHOD, lib.LR_T_OPEN):
            frame = server.receive()
            assert isinstance(frame, Frame)
            assert frame.type == type_
        yield one, server
        one.close()


def receive_messages(server: End, sizes: list[int]) -> None:
    for size in sizes:
        frame = server.receive()
        assert isinstance(frame, Frame), frame
        assert (frame.type, len(frame.payload)) == (lib.LR_T_MESSAGE, size)


def test_messages_that_were_accepted_arrive_whole(ends: tuple[Client, End]) -> None:
    client, server = ends
    for _ in range(3):
        receive_messages(server, client.send_until_full())


def test_posted_messages_arrive_after_them(ends: tuple[Client, End]) -> None:
    client, server = ends
    sizes = client.send_until_full()
    assert lib.lr_half_close(client.engine, client.call) == 0
    assert lib.lr_cancel(client.engine, client.call, 1, b"why", 3) == 0
    assert lib.lr_release(client.engine, client.call) == 0
    receive_messages(server, sizes)
    end = server.receive()
    assert isinstance(end, Frame)
    assert (end.type, end.flags) == (lib.LR_T_MESSAGE, lib.LR_F_END)
    reset = server.receive()
    assert isinstance(reset, Frame)
    assert (reset.type, reset.payload) == (lib.LR_T_RESET, b"\1\0\0\0why")


def test_an_engine_that_is_closed_leaves_no_thread_behind(ends: tuple[Client, End]) -> None:
    client, _ = ends
    before = threads()
    client.send_until_full()
    lib.lr_engine_close(client.engine)
    await_that(lambda: threads() <= before, "the end of the engine's threads")


def threads() -> set[str]:
    """The core's own threads in this process."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it has ended meanwhile
            if (task / "comm").read_text().startswith("localrpc"):
                found.add(task.name)
    return found

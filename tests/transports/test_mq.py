"""What mq: does that the other queues need not."""

from __future__ import annotations

import os
import stat
import struct
import time
from pathlib import Path

import posix_ipc
import pytest

from localrpc._core import Io, lib, links
from localrpc.transports.mq import _DEPTH
from tests.links.kinds import KINDS, Frame, pair
from tests.peers.journal import PATIENCE

pytestmark = pytest.mark.parametrize("kind", ["mq"])
"""In the tests' names, by which those of the same user's queues take turns."""

ENDED = 0o400
"""The mode of a queue that has its end."""


def modes() -> set[int]:
    """Of the queues that this process has open."""
    open_files = Path("/proc/self/fd").iterdir()
    queues = [fd for fd in open_files if os.path.islink(fd) and _is_queue(fd)]
    return {stat.S_IMODE(fd.stat().st_mode) for fd in queues}


def _is_queue(fd: Path) -> bool:
    try:
        return os.readlink(fd).startswith("/localrpc-")
    except FileNotFoundError:
        return False


def test_closing_after_the_peer_has_closed(kind: str, tmp_path: Path) -> None:
    with pair(KINDS[kind], tmp_path) as (client, server):
        client.hang_up()
        assert server.receive() == lib.LR_CLOSED
        server.hang_up()
        assert modes() == {0o600, ENDED}


def test_an_end_that_found_the_queue_full_is_seen_behind_what_is_in_it(
    kind: str, tmp_path: Path
) -> None:
    with pair(KINDS[kind], tmp_path) as (client, server):
        sent = 0
        while server.try_send(Frame(lib.LR_T_MESSAGE, 0, sent, bytes(8000))) == 1:
            sent += 1
        server.hang_up()
        came = []
        while isinstance(frame := client.receive(), Frame):
            came.append(frame.call)
        assert frame == lib.LR_CLOSED
        assert came == list(range(_DEPTH))


def test_an_end_that_found_the_queue_full_is_seen_when_the_greeting_has_read_from_it(
    kind: str,
) -> None:
    """The link did not see what was taken before it was made."""
    names = [f"/localrpc-test-{os.getpid()}-{end}" for end in ("up", "down")]
    options = {"mode": 0o600, "max_messages": 3, "max_message_size": 8192}
    up, down = (posix_ipc.MessageQueue(name, posix_ipc.O_CREX, **options) for name in names)
    for name in names:
        posix_ipc.unlink_message_queue(name)
    frame = struct.pack("<IBBHQ", 0, lib.LR_T_GOAWAY, 0, 0, 0)
    for message in (b"the HELLO", frame, frame):
        down.send(message)
    os.fchmod(down.mqd, ENDED)
    down.receive()
    link = links.open_mqueue(rx_fd=down.mqd, tx_fd=up.mqd, pidfd=-1, spin_us=0)
    io = Io()
    until = time.monotonic_ns() + int(PATIENCE * 1e9)
    came = [lib.lr_link_recv(link.raw, io.raw, until) for _ in range(3)]
    assert came == [1, 1, lib.LR_CLOSED]
    link.close()


def test_a_waiting_reader_sees_an_end_that_found_the_queue_full(kind: str, tmp_path: Path) -> None:
    """The reader has taken some before, and sleeps in the queue as soon as it is empty."""
    with pair(KINDS[kind], tmp_path) as (client, server):
        for taken in range(2 * _DEPTH):
            for number in range(_DEPTH):
                assert server.try_send(Frame(lib.LR_T_MESSAGE, 0, number, bytes(8000))) == 1
            if taken == 2 * _DEPTH - 1:
                server.hang_up()
            for number in range(_DEPTH):
                frame = client.receive()
                assert isinstance(frame, Frame)
                assert frame.call == number
        assert client.receive() == lib.LR_CLOSED

"""What mq: does that the other queues need not."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from localrpc._core import lib
from tests.links.kinds import KINDS, Frame, pair

pytestmark = pytest.mark.parametrize("kind", ["mq"])
"""In the tests' names, by which those of the same user's queues take turns."""

OVERTAKEN = 0o400
"""The mode of a queue whose end could not wait for room."""


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


def test_who_hangs_up_after_the_peer_has_nobody_to_tell(kind: str, tmp_path: Path) -> None:
    """Nor to wait for: a queue that is full stays so, and a server has other clients."""
    with pair(KINDS[kind], tmp_path) as (client, server):
        client.hang_up()
        assert server.receive() == lib.LR_CLOSED
        server.hang_up()
        assert modes() == {0o600}


def test_who_hangs_up_on_a_full_queue_overtakes_what_is_in_it(kind: str, tmp_path: Path) -> None:
    with pair(KINDS[kind], tmp_path) as (client, _):
        while client.try_send(Frame(lib.LR_T_MESSAGE, 0, 1, bytes(8000))) == 1:
            pass
        client.hang_up()
        assert OVERTAKEN in modes()

"""Forked children of the test's own process."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

import localrpc
from tests.peers.journal import PATIENCE


class Child:
    """Runs `work` in a forked child, which then leaves without any clean-up."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            signal.alarm(int(PATIENCE * 2))
            try:
                work()
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)

    def join(self) -> None:
        """Raises AssertionError unless it ends, and well."""
        pidfd = os.pidfd_open(self.pid)
        try:
            ended = bool(wait([pidfd], PATIENCE))
        finally:
            os.close(pidfd)
        if not ended:
            os.kill(self.pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        assert ended, "the child hangs"
        assert code == 0, f"the child failed ({code})"


def try_all_kinds(channel: Any) -> None:
    """One call of each kind, each with the right answer."""
    assert channel.unary_unary("/station/echo")(b"x", timeout=PATIENCE) == b"x"
    assert next(channel.unary_stream("/station/trickle")(b"", timeout=PATIENCE)) == b"first"
    consume = channel.stream_unary("/station/consume")
    assert consume(iter([b"x"] * 3), timeout=PATIENCE) == b"3"
    mirror = channel.stream_stream("/station/mirror")
    assert list(mirror(iter([b"a", b"b"]), timeout=PATIENCE)) == [b"a", b"b"]


def ask(target: str, message: bytes) -> bytes:
    """In a child of multiprocessing's, which imports this file and no test."""
    with localrpc.insecure_channel(target) as channel:
        try_all_kinds(channel)
        echo: Any = channel.unary_unary("/station/echo")
        return bytes(echo(message, timeout=PATIENCE))

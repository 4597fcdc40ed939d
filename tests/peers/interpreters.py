"""Interpreters that start in a few milliseconds: forked by one that has the imports.

A program is `__main__`, on the main thread of a process that had no other thread. It ends as every
interpreter does: with what `threading` and `atexit` do, and with the end of all modules. Only what
the program imports in its first lines is there before; what localrpc imports later, when a server
starts or at the exit, is still to be imported.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
from pathlib import Path
from time import monotonic
from typing import Any

from tests.conftest import FULL
from tests.peers.fork_server import LARGEST
from tests.peers.journal import PATIENCE

ROOT = Path(__file__).parents[2]

_FORK = "from tests.peers.fork_server import next_program\nexec(next_program())\n"
# From 3.12 on Python itself complains of every fork of a process with threads.
_COMMAND = [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c"]


class Interpreter:
    """A program with pipes as its standard streams.

    It is forked, or `fresh`: started as a shell would, which an ordinary run tries with a part.
    """

    def __init__(self, code: str, *arguments: str, fresh: bool = FULL) -> None:
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        ours_err, theirs_err = os.pipe()
        streams = theirs_in, theirs_out, theirs_err
        self._pipes = ours_in, ours_out, ours_err
        try:
            self._process = (_started if fresh or fork_server() is None else _forked)(
                code, arguments, streams
            )
        finally:
            for fd in streams:
                os.close(fd)
        self._code: int | None = None
        self.pid: int = self._process.pid

    def __enter__(self) -> Interpreter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._code is None:
            self.signal(signal.SIGKILL)
            self._code = self._process.wait(PATIENCE)
        for fd in self._pipes:
            os.close(fd)

    def readline(self) -> str:
        """A line of its output; what is beyond it is left for `finish()`."""
        said = b""
        until = monotonic() + PATIENCE
        while not said.endswith(b"\n"):
            left = max(0, until - monotonic())
            assert select.select([self._pipes[1]], [], [], left)[0], (
                f"it says no more than {said!r}"
            )
            byte = os.read(self._pipes[1], 1)
            if not byte:
                break
            said += byte
        return said.decode()

    def hear(self, word: str) -> None:
        said = self.readline()
        assert said == f"{word}\n", (said, self.finish())

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def finish(self) -> tuple[int, str, str]:
        """Exit code, the rest of its output, its errors; it has to end by itself."""
        until = monotonic() + PATIENCE
        said = {fd: b"" for fd in self._pipes[1:]}
        with selectors.DefaultSelector() as selector:
            for fd in said:
                selector.register(fd, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(max(0, until - monotonic()))
                assert ready, f"the program does not end: {list(said.values())}"
                for key, _ in ready:
                    part = os.read(key.fd, 1 << 16)
                    said[key.fd] += part
                    if not part:
                        selector.unregister(key.fd)
        self._code = self._process.wait(PATIENCE)
        out, err = said.values()
        return self._code, out.decode(), err.decode()


def _environment() -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        # Its main thread has to handle signals, even if this run has disabled timers.
        "LOCALRPC_TIMERS": "on",
        # A signal may come between two instructions: one that opens a file, in Python's
        # own import too, and the one from which on it is closed in any case.
        "PYTHONWARNINGS": os.environ["PYTHONWARNINGS"] + ",ignore::ResourceWarning",
    }


def _started(code: str, arguments: tuple[str, ...], streams: tuple[int, int, int]) -> Any:
    stdin, stdout, stderr = streams
    return subprocess.Popen(
        [*_COMMAND, code, *arguments],
        cwd=ROOT,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=_environment(),
    )


class _Forked:
    """Another process's child, with what subprocess.Popen has."""

    def __init__(self, reports: socket.socket) -> None:
        self._reports = reports
        self.pid = int(reports.recv(100))

    def wait(self, timeout: float) -> int:
        self._reports.settimeout(timeout)
        with self._reports:
            return int(self._reports.recv(100))

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.kill(self.pid, number)


@functools.cache
def fork_server() -> socket.socket | None:
    """A test that counts its descriptors or children has this called before.

    None where sockets are forbidden (tests/transports/test_only_this_primitive.py).
    """
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except PermissionError:
        return None
    process = subprocess.Popen(
        [*_COMMAND, _FORK, str(theirs.fileno())],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        env=_environment(),
    )
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait(PATIENCE)

    atexit.register(end)
    return ours


def _forked(code: str, arguments: tuple[str, ...], streams: tuple[int, int, int]) -> _Forked:
    server = fork_server()
    assert server is not None
    reports, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        request = json.dumps([code, arguments]).encode()
        assert len(request) < LARGEST
        socket.send_fds(server, [request], [theirs.fileno(), *streams])
    return _Forked(reports)

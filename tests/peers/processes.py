"""Processes that start in a few milliseconds: forked from one that has all imports."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing import connection
from pathlib import Path
from typing import Any

from tests.peers import census, scenes, station
from tests.peers.journal import PATIENCE, PipeJournal

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["grpc", "localrpc.sync.server", "localrpc.aio", "tests.peers.preloaded", "tests.peers.scenes"]
)


class Peer:
    """A process with a journal; the context manager sees to its end."""

    def __init__(self, life: Callable[..., None], *args: Any) -> None:
        self.journal = PipeJournal()
        self._process = _context.Process(target=life, args=(*args, self.journal.pen), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid
        census.started.add(str(self.pid))

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.kill()
        self.join()
        self._process.close()
        self.journal.close()

    def hear(self, *words: object) -> tuple[Any, ...]:
        try:
            return self.journal.hear(*words)
        except AssertionError as error:
            raise AssertionError(f"{error}; process {self.pid}: {self._threads()}") from None

    def _threads(self) -> list[str]:
        """Where each of them is, for the report of a failure."""
        found = []
        for task in Path(f"/proc/{self.pid}/task").glob("*"):
            with contextlib.suppress(OSError):
                state = (task / "stat").read_text().rpartition(")")[2].split()[0]
                found.append(f"{state} in {(task / 'wchan').read_text()}")
        return found

    def signal(self, number: int) -> None:
        try:
            os.kill(self.pid, number)
        except ProcessLookupError as error:
            said = self.journal.rest()
            raise ProcessLookupError(
                error.errno, f"process {self.pid} has ended; it said {said}"
            ) from None

    def kill(self) -> None:
        """SIGKILL; returns at once."""
        self.signal(signal.SIGKILL)

    def stop(self) -> None:
        """SIGSTOP, and wait until every thread has stopped."""
        self.signal(signal.SIGSTOP)
        scenes.await_that(self._stopped, "the process to stop")

    def go_on(self) -> None:
        self.signal(signal.SIGCONT)

    def _stopped(self) -> bool:
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return all(
            (task / "stat").read_text().rpartition(")")[2].split()[0] == "T" for task in tasks
        )

    def join(self) -> int | None:
        """Its exit code."""
        assert connection.wait([self._process.sentinel], PATIENCE), "the process does not end"
        self._process.join()
        return self._process.exitcode


def server(target: str) -> Peer:
    """A station in a separate process, serving."""
    peer = Peer(station.serve, target)
    peer.hear("serving")
    return peer


def client(target: str, scene: str) -> Peer:
    """A client that plays a scene."""
    return Peer(scenes.perform, target, scene)


def idle_client(target: str) -> Peer:
    peer = Peer(scenes.linger, target)
    peer.hear("begun")
    return peer

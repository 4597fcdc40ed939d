"""The two halves of a peer as the runner sees them: one process each, see worker.py."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from .peer import Peer


class WorkerFailed(Exception):
    """The process has ended or does not answer; the text contains its last output."""


class Worker:
    """A half of a peer in a process of its own, pinned to `cores`."""

    def __init__(self, role: str, peer: Peer, directory: Path, cores: set[int]) -> None:
        self._what = f"{peer.name}'s {role}"
        self._pipe, theirs = Pipe()
        self._errors = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 (closed with the worker)
        # Our servers are found in the run's folder; one that is already running has its own place.
        names = {"LOCALRPC_RUNTIME_DIR": str(directory)} if peer.has_server else {}
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", f"{__package__}.worker", role, peer.name),
                    *(str(directory), str(theirs.fileno()), ",".join(map(str, cores))),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._errors,
                stderr=self._errors,
                env=os.environ | names,
            )
        self.pid = self._process.pid
        with contextlib.suppress(OSError):  # it has ended: ask() and answer() report how
            self._pipe.send(peer)

    def ask(self, question: object, patience: float) -> Any:
        """Return its answer, which may be a Failure. Raises WorkerFailed."""
        try:
            self._pipe.send(question)
            return self.answer(patience)
        except OSError as error:
            raise WorkerFailed(f"{self._what} ended: {self._last_words()}") from error

    def answer(self, patience: float) -> Any:
        try:
            if self._pipe.poll(patience):
                return self._pipe.recv()
        except (EOFError, OSError) as error:
            raise WorkerFailed(f"{self._what} ended: {self._last_words()}") from error
        raise WorkerFailed(f"{self._what} gave no answer within {patience:.0f} s")

    def _last_words(self) -> str:
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "its pipe is closed"
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"{how}{': ' + lines[-1] if lines else ''}"

    def close(self) -> None:
        self._pipe.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()


@dataclass(frozen=True)
class Pair:
    """A peer's two running halves; a server that was already running is not ours."""

    server: Worker | None
    client: Worker
    server_pid: int | None

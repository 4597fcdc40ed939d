"""What a peer says about itself, in order, within a process or across two."""

from __future__ import annotations

import queue
import threading
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from time import monotonic
from typing import Any, Protocol

PATIENCE = 20.0
"""Seconds after which something that must happen has failed."""


class Pen(Protocol):
    """The end that speaks."""

    def say(self, *words: object) -> None: ...


class PipePen:
    """A pen that can be an argument to another process, and that a fork inherits."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def __reduce__(self) -> Any:
        return PipePen, (self._connection,)

    def say(self, *words: object) -> None:
        with self._lock:
            try:
                self._connection.send(words)
            except OSError:
                pass  # the reader has gone

    def close(self) -> None:
        with self._lock:
            self._connection.close()


class Journal:
    """The end that listens, and a pen for this process. What is not asked for is kept."""

    def __init__(self) -> None:
        self._said: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._heard: list[tuple[Any, ...]] = []

    def say(self, *words: object) -> None:
        self._said.put(words)

    def hear(self, *words: object) -> tuple[Any, ...]:
        """The next entry that begins with `words`; raises AssertionError when none comes."""
        for entry in self._heard:
            if entry[: len(words)] == words:
                self._heard.remove(entry)
                return entry
        until = monotonic() + PATIENCE
        while entry := self._next(max(until - monotonic(), 0)):
            if entry[: len(words)] == words:
                return entry
            self._heard.append(entry)
        raise AssertionError(f"{words} did not arrive; only {self._heard}")

    def rest(self) -> list[tuple[Any, ...]]:
        """All lines that no test has waited for, for the report of a failure."""
        while entry := self._next(0):
            self._heard.append(entry)
        return self._heard

    def _next(self, patience: float) -> tuple[Any, ...]:
        try:
            return self._said.get(timeout=patience)
        except queue.Empty:
            return ()


class PipeJournal(Journal):
    """Its `pen` is for another process. A pipe holds some hundred entries: read it."""

    def __init__(self) -> None:
        super().__init__()
        self._connection, other = Pipe(duplex=False)
        self.pen = PipePen(other)

    def _next(self, patience: float) -> tuple[Any, ...]:
        try:
            return tuple(self._connection.recv()) if self._connection.poll(patience) else ()
        except (EOFError, OSError):  # the other end, or ours, is closed
            return ()

    def close(self) -> None:
        self.pen.close()
        self._connection.close()

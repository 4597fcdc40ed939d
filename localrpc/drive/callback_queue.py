"""Runs callbacks in order on a background thread, which exists only while there are any."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from localrpc import _locks, _log
from localrpc.drive.finalizers import start_unwaited

_logger = _log.logger("channel")


class CallbackQueue:
    """A queue of callbacks and the thread that runs them.

    `complaint` is the text of the log record for an exception that a callback raised. No lock is
    waited for: a callback may own the last reference to an object whose finalizer posts another.
    """

    def __init__(self, name: str, complaint: str) -> None:
        self._name = name
        self._complaint = complaint
        self._waiting: deque[Callable[[], object]] = deque()
        self._running = _locks.Lock()
        """Held while the thread exists; acquired without blocking only."""

    def post(self, *callbacks: Callable[[], object]) -> None:
        """Queue callbacks and return. At interpreter exit no thread can start, and none run."""
        self._waiting.extend(callbacks)
        if not self._waiting or not self._running.acquire(blocking=False):
            return
        try:
            start_unwaited(self._run, self._name)
        except RuntimeError:
            self._running.release()

    def _run(self) -> None:
        while True:
            try:
                callback = self._waiting.popleft()
            except IndexError:
                self._running.release()
                # A post() in between found the lock taken.
                if self._waiting and self._running.acquire(blocking=False):
                    continue
                return
            try:
                callback()
            except BaseException:  # SystemExit, too: the other callbacks still have to run
                _logger.exception(self._complaint)

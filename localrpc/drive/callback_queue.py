"""Runs callbacks in order on a background thread, which exists only while there are any."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from localrpc import _locks, _log

_logger = _log.logger("channel")


class CallbackQueue:
    """A queue of callbacks and the thread that runs them.

    `complaint` is the text of the log record for an exception that a callback raised.
    """

    def __init__(self, name: str, complaint: str) -> None:
        self._name = name
        self._complaint = complaint
        self._lock = _locks.Lock()
        self._waiting: deque[Callable[[], object]] = deque()
        self._running = False

    def post(self, *callbacks: Callable[[], object]) -> None:
        """Queue callbacks and return. At interpreter exit no thread can start, and none run."""
        with self._lock:
            self._waiting.extend(callbacks)
            if self._running or not self._waiting:
                return
            self._running = True
        try:
            threading.Thread(target=self._run, name=self._name, daemon=True).start()
        except RuntimeError:
            with self._lock:
                self._running = False

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running = False
                    return
                callback = self._waiting.popleft()
            try:
                callback()
            except BaseException:  # SystemExit, too: the other callbacks still have to run
                _logger.exception(self._complaint)

"""Runs other people's callbacks, in order, on a thread that lives while there are any."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from localrpc import _locks, _log

_logger = _log.logger("channel")


class Courier:
    """`complaint` is what the log says before an exception that a callback let out."""

    def __init__(self, name: str, complaint: str) -> None:
        self._name = name
        self._complaint = complaint
        self._lock = _locks.Lock()
        self._waiting: deque[Callable[[], object]] = deque()
        self._running = False

    def post(self, *callbacks: Callable[[], object]) -> None:
        """Returns at once. At interpreter exit, when no thread can start, they do not run."""
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
            except BaseException:  # SystemExit, too: others wait for theirs
                _logger.exception(self._complaint)

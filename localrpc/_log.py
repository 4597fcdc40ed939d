"""Loggers, and the level below DEBUG on which the wire talks.

Everything hangs under "localrpc"; `logging.getLogger("localrpc.wire").setLevel(TRACE)`
shows each greeting and connection.
"""

from __future__ import annotations

import logging
from time import monotonic

from localrpc import _locks

TRACE = 5

logging.addLevelName(TRACE, "TRACE")

# No NullHandler: in a program that has not set up logging, warnings go to stderr.
_ROOT = logging.getLogger("localrpc")


class Seldom:
    """Logs each cause once, and then once a minute at most with how often it came meanwhile.

    For what others can bring about as often as they like. Of causes it knows `most`
    at a time; what comes beside them within a minute counts as one.
    """

    def __init__(self, logger: logging.Logger, pause: float = 60.0, most: int = 50) -> None:
        self._logger = logger
        self._pause = pause
        self._most = most
        self._lock = _locks.Lock()
        self._seen: dict[str, list[float]] = {}
        """When each cause may be logged again, and how often it was not."""

    def log(self, level: int, cause: str, text: str) -> None:
        """`text` is what is logged if `cause` may be."""
        now = monotonic()
        with self._lock:
            if cause not in self._seen and len(self._seen) >= self._most:
                for old in [each for each, (again, _) in self._seen.items() if again <= now]:
                    del self._seen[old]
                if len(self._seen) >= self._most:
                    cause = ""
            again, kept_back = self._seen.get(cause, (now, 0))
            if now < again:
                self._seen[cause][1] += 1
                return
            self._seen[cause] = [now + self._pause, 0]
        if kept_back:
            text = f"{text} ({kept_back:.0f} times more meanwhile)"
        self._logger.log(level, "%s", text)


def logger(name: str) -> logging.Logger:
    """`name` is relative: "wire" gives "localrpc.wire"."""
    return _ROOT.getChild(name)

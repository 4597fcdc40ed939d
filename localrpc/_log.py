"""Loggers, and a level below DEBUG for connections and handshakes.

All of them are below "localrpc"; `logging.getLogger("localrpc.wire").setLevel(TRACE)` shows each
handshake and connection.
"""

from __future__ import annotations

import sys
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from localrpc import _locks
from localrpc._later import Later, load

if TYPE_CHECKING:
    import logging
else:
    logging = Later("logging")

TRACE = 5
_WARNING = 30


class _Logger:
    """A logging.Logger that imports logging when it is first used.

    Many programs end without a message, and logging takes longer to import than a first call.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        logging: Any = load("logging")
        logging.addLevelName(TRACE, "TRACE")
        # No NullHandler: in a program that has not set up logging, warnings go to stderr.
        return getattr(logging.getLogger(self._name), name)

    def log(self, level: int, text: str, *args: object) -> None:
        """Without logging in the program, no level below WARNING is enabled."""
        if level >= _WARNING or "logging" in sys.modules:
            self.__getattr__("log")(level, text, *args, stacklevel=2)


if "logging" in sys.modules:
    logging.addLevelName(TRACE, "TRACE")


class Seldom:
    """Logs each cause once, then at most once a minute, with the number of suppressed records.

    For events that a peer can cause as often as it likes. Keeps at most `most` causes; all
    others within a minute count as one.
    """

    def __init__(self, logger: logging.Logger, pause: float = 60.0, most: int = 50) -> None:
        self._logger = logger
        self._pause = pause
        self._most = most
        self._lock = _locks.Lock()
        self._seen: dict[str, list[float]] = {}
        """For each cause: when it may be logged again, and how often it has been suppressed."""

    def log(self, level: int, cause: str, text: str) -> None:
        """Log `text`, unless `cause` has been logged too recently."""
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
            text = f"{text} ({kept_back:.0f} more times since)"
        self._logger.log(level, "%s", text)


def logger(name: str) -> logging.Logger:
    """Return a logger; the name is relative: "wire" gives "localrpc.wire"."""
    return cast("logging.Logger", _Logger(f"localrpc.{name}"))

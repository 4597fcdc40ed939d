"""The numbers by which a channel tells a server which method a call is for.

The names that a channel uses first get numbers, which are declared once on each of its
connections. There is room for a few thousand; calls of other methods carry the full name, so the
number of methods that a gateway uses is not limited.
"""

from __future__ import annotations

from localrpc import _locks
from localrpc._core import lib

NUMBERS = int(lib.LR_MAX_NAMES)
BYTES = int(lib.LR_MAX_NAME_BYTES)
UNNUMBERED = 0


class MethodNumbers:
    """The method numbers of a channel, the same in all of its sessions. Thread-safe."""

    def __init__(self) -> None:
        self._lock = _locks.Lock()
        self._numbers: dict[str, int] = {}
        self._left = BYTES

    def number(self, method: str) -> int:
        """Return the method's number, from 1; UNNUMBERED if there is no room for another name."""
        number = self._numbers.get(method)
        if number is not None:
            return number
        with self._lock:
            size = len(method.encode())
            if not 0 < size <= self._left or len(self._numbers) >= NUMBERS - 1:
                return self._numbers.get(method, UNNUMBERED)
            number = self._numbers.setdefault(method, len(self._numbers) + 1)
            if number == len(self._numbers):
                self._left -= size
            return number

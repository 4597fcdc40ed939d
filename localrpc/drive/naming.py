"""How a channel tells a server which method a call is for.

The names that a channel uses first get numbers, which are declared once on each of its
connections. There is room for a few thousand; calls of other methods carry the full name, so the
number of methods that a gateway uses is not limited.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from localrpc import _locks
from localrpc._core import lib
from localrpc.wire.frames import NAME_MAX

if TYPE_CHECKING:
    import grpc

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


def in_open(method: str, head: bytes) -> bytes:
    """Return the payload of an OPEN of an UNNUMBERED method: its name, then the metadata."""
    name = method.encode()
    return struct.pack("<I", len(name)) + name + head


def unsendable(method: str) -> tuple[grpc.StatusCode, str] | None:
    """Return how a call ends, as in grpcio, if its method's name cannot be sent to a server."""
    size = len(method.encode())
    if 0 < size <= NAME_MAX:
        return None
    import grpc

    if not size:
        return grpc.StatusCode.CANCELLED, "CANCELLED"
    text = f"the method name is too long: {size} bytes, the limit is {NAME_MAX}"
    return grpc.StatusCode.RESOURCE_EXHAUSTED, text

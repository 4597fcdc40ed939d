"""How a channel says which method a call is for.

The names that a channel uses first get numbers, which each of its connections hears
once. There is room for some thousand of them; the calls of all others bring their names
along, so that a gateway may use as many as it likes.
"""

from __future__ import annotations

import struct

import grpc

from localrpc import _locks
from localrpc._core import lib
from localrpc.wire.frames import NAME_MAX

NUMBERS = int(lib.LR_MAX_NAMES)
BYTES = int(lib.LR_MAX_NAME_BYTES)
UNNUMBERED = 0


class MethodNumbers:
    """A channel's own numbers, the same in all of its sessions. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = _locks.Lock()
        self._numbers: dict[str, int] = {}
        self._left = BYTES

    def number(self, method: str) -> int:
        """From 1 on; UNNUMBERED where there is no room for one more name."""
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
    """What an OPEN of an UNNUMBERED method has in front of its metadata, and these."""
    name = method.encode()
    return struct.pack("<I", len(name)) + name + head


def unsendable(method: str) -> tuple[grpc.StatusCode, str] | None:
    """How a call of that method ends, if its name can be said to no server; as in grpcio."""
    size = len(method.encode())
    if not size:
        return grpc.StatusCode.CANCELLED, "CANCELLED"
    if size > NAME_MAX:
        text = f"the method's name is too long: {size} bytes, and {NAME_MAX} are the most"
        return grpc.StatusCode.RESOURCE_EXHAUSTED, text
    return None

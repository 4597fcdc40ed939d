"""What a call has sent while no server has seen it, so that it can be sent again elsewhere."""

from __future__ import annotations

MOST = 256 * 1024
"""Bytes; gRPC's implementations keep as much for a retry."""
_EACH = 64
"""Bytes that a message costs besides its own."""


class Kept:
    """The requests of one call."""

    __slots__ = ("_room", "closed", "messages")

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.closed = False
        """No request follows."""
        self._room = MOST

    def add(self, message: bytes) -> bool:
        """Keep a message that has been sent. Return False if that is too much: then the call cannot
        begin again."""
        self._room -= len(message) + _EACH
        if self._room < 0:
            self.messages.clear()
            return False
        self.messages.append(message)
        return True

"""What a client sends to begin a call, and how often it may try to."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from localrpc._later import Later
from localrpc.metadata import USER_AGENT
from localrpc.wire import codec
from localrpc.wire.frames import NAME_MAX

if TYPE_CHECKING:
    import grpc
else:
    grpc = Later("grpc")

ATTEMPTS = 8
"""How often a call that no server has seen is tried before it fails."""


def text(name: str | bytes) -> str:
    """Return a target's or method's name as a str.

    As in grpcio, raise AttributeError unless it is a str or bytes.
    """
    return name.decode() if isinstance(name, bytes) else name.encode().decode()


def unsendable(method: str) -> tuple[grpc.StatusCode, str] | None:
    """Return how a call ends, as in grpcio, if its method's name cannot be sent to a server."""
    size = len(method.encode())
    if 0 < size <= NAME_MAX:
        return None
    if not size:
        return grpc.StatusCode.CANCELLED, "CANCELLED"
    reason = f"the method name is too long: {size} bytes, the limit is {NAME_MAX}"
    return grpc.StatusCode.RESOURCE_EXHAUSTED, reason


def head_of(metadata: Iterable[Any] | None) -> bytes:
    """Return a call's encoded metadata, without a user agent: that is the channel's.

    Raises InvalidMetadata.
    """
    if metadata is None:
        return b""
    if type(metadata) is not tuple:
        metadata = tuple(metadata)
    pairs = [pair for pair in metadata if not (len(pair) == 2 and pair[0] == USER_AGENT)]
    return codec.encode_metadata(metadata if len(pairs) == len(metadata) else pairs)


def with_name(method: str, head: bytes) -> bytes:
    """Return the payload of an OPEN of a method that has no number: its name, then the metadata."""
    name = method.encode()
    return struct.pack("<I", len(name)) + name + head


class Attempts:
    """Decides if a call is tried (again).

    It may be tried again only if no server has seen it: then it cannot have had an effect.
    """

    def __init__(self) -> None:
        self._left = ATTEMPTS

    def begin(self) -> bool:
        """Begin an attempt. Return False if the call has to end instead."""
        if not self._left:
            return False
        self._left -= 1
        return True

    def grant(self) -> None:
        """Allow one attempt more."""
        self._left += 1

    def failed(self, *, unseen: bool) -> bool:
        """Note that an attempt has failed. Return True if another one may follow."""
        if not unseen:
            self._left = 0
        return unseen

"""How a call can end on this side, in grpcio's codes and words."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import grpc

from localrpc import _log
from localrpc.drive.core import lib
from localrpc.metadata import Pairs, SizeLimits

logger = _log.logger("channel")

DEADLINE_EXCEEDED = (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
LOCALLY_CANCELLED = (grpc.StatusCode.CANCELLED, "Locally cancelled by application!")
COLLECTED = (grpc.StatusCode.CANCELLED, "Cancelled upon garbage collection!")
CHANNEL_CLOSED = (grpc.StatusCode.CANCELLED, "Channel closed!")
SOCKET_CLOSED = (grpc.StatusCode.UNAVAILABLE, "Socket closed")
FORKED = (grpc.StatusCode.CANCELLED, "Call cancelled in fork child")
NO_MEMORY_TO_SEND = (
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    "no memory for what the server is to be told",
)
TOO_MANY = (grpc.StatusCode.INTERNAL, "a unary call got more than one response")
BAD_RESPONSE = (grpc.StatusCode.INTERNAL, "Exception deserializing response!")


def too_much_metadata(
    limits: SizeLimits, block: bytes, pairs: Iterable[Any]
) -> tuple[grpc.StatusCode, str] | None:
    """How a call ends whose answer had `pairs`, sent as `block`, or None."""
    if len(block) <= limits.light:
        return None
    text = limits.excess(pairs)
    if text is None:
        return None
    return grpc.StatusCode.RESOURCE_EXHAUSTED, f"Stream removed ({text})"


def trailer_pairs(code: int, details: str, metadata: Pairs) -> list[tuple[str, Any]]:
    """A trailer as it would be counted in grpcio."""
    return [("grpc-status", str(code)), ("grpc-message", details), *metadata]


def debug_text(code: grpc.StatusCode, details: str) -> str:
    """grpcio's debug_error_string for a status from the other side or the core."""
    if code is grpc.StatusCode.OK:
        return ""
    return f"{code.name}:{details}" if details else code.name


def deserialize(message: bytes, function: Callable[[bytes], Any] | None) -> tuple[Any, bool]:
    """The response, and whether there is none: an exception is logged, None is as bad."""
    if function is None:
        return message, False
    try:
        response = function(message)
    except Exception:
        logger.exception("Exception deserializing message!")
        return None, True
    return response, response is None


def failure(
    result: int, size: int, max_receive: int, *, closed: bool
) -> tuple[grpc.StatusCode, str]:
    """How a call ends for a negative `result` of the core's; `size` of a message too large."""
    if result == lib.LR_TOO_LARGE:
        text = f"Received message larger than max ({size} vs. {max_receive})"
        return grpc.StatusCode.RESOURCE_EXHAUSTED, f"Stream removed (CLIENT: {text})"
    if result == lib.LR_TIMEOUT:
        return DEADLINE_EXCEEDED
    if result == lib.LR_FORKED:
        return FORKED
    if closed:
        return CHANNEL_CLOSED
    if result == lib.LR_CANCELLED:  # by the core: a call that is cancelled here has ended before
        return NO_MEMORY_TO_SEND
    if result == lib.LR_PROTOCOL:
        return grpc.StatusCode.UNAVAILABLE, "the server broke the localrpc protocol"
    if result in (lib.LR_NOMEM, lib.LR_NOROOM):
        return grpc.StatusCode.RESOURCE_EXHAUSTED, (
            f"no room for another call on this connection, which has {lib.LR_MAX_SLOTS} at most"
        )
    return SOCKET_CLOSED

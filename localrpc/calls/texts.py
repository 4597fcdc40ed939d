"""The statuses with which either side ends a call for a reason of its own: code and details.

They are grpcio's wherever grpcio has them. Texts about targets are in transports/.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import grpc

from localrpc import status
from localrpc.errors import InvalidMetadata, OversizedMetadata
from localrpc.metadata import Pairs, SizeLimits


class Ending(NamedTuple):
    """How a call ends; `debug` is the result of debug_error_string(), which may be None."""

    code: grpc.StatusCode
    details: str
    debug: str | None = None


# For a client

DEADLINE_EXCEEDED = (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
LOCALLY_CANCELLED = (grpc.StatusCode.CANCELLED, "Locally cancelled by application!")
COLLECTED = (grpc.StatusCode.CANCELLED, "Cancelled upon garbage collection!")
CHANNEL_CLOSED = (grpc.StatusCode.CANCELLED, "Channel closed!")
SOCKET_CLOSED = (grpc.StatusCode.UNAVAILABLE, "Socket closed")
FORKED = (grpc.StatusCode.CANCELLED, "Call cancelled in fork child")
NO_MEMORY_TO_SEND = (
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    "no memory for a message to the server",
)
BROKEN_PROTOCOL = (grpc.StatusCode.UNAVAILABLE, "the server broke the localrpc protocol")
TOO_MANY = (grpc.StatusCode.INTERNAL, "a unary call got more than one response")
BAD_RESPONSE = (grpc.StatusCode.INTERNAL, "Exception deserializing response!")
BAD_REQUEST = (grpc.StatusCode.INTERNAL, "Exception serializing request!")
BAD_ITERATOR = (grpc.StatusCode.UNKNOWN, "Exception iterating requests!")
NO_CREDENTIALS = (
    grpc.StatusCode.UNAUTHENTICATED,
    "Established channel does not have a sufficient security level to transfer call credential.",
)

# For a server; numbers, because they are only sent
NO_METHOD = (status.UNIMPLEMENTED, "Method not found!")
NAMELESS = (status.INTERNAL, "the call has no method name")
TOO_MANY_CALLS = (status.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!")
NO_HANDLER = (status.UNKNOWN, "Error in service handler!")
ABORTED = (status.UNKNOWN, "RPC Aborted")
UNREADABLE = (status.INTERNAL, "Exception deserializing request!")
UNSERIALIZABLE = (status.INTERNAL, "Failed to serialize response!")
BAD_TRAILERS = (status.INTERNAL, "Invalid metadata")
CANCELLED_BY_HANDLER = (status.CANCELLED, b"CANCELLED")
LATE = (status.DEADLINE_EXCEEDED, b"Deadline Exceeded")
CANCELLING_ALL = (status.UNAVAILABLE, b"Cancelling all calls")


def no_room(most: int) -> tuple[grpc.StatusCode, str]:
    """A call beyond the `most` that a connection can carry at once."""
    text = f"no room for another call on this connection: the limit is {most} calls"
    return grpc.StatusCode.RESOURCE_EXHAUSTED, text


def request_too_large(size: int, limit: int) -> tuple[int, str]:
    return status.RESOURCE_EXHAUSTED, f"SERVER: {received_too_large(size, limit)}"


def requires_one_request(method: str) -> tuple[int, str]:
    """A method that takes a single request, called with none."""
    # The repr of bytes inside quotes is grpcio's.
    return status.UNIMPLEMENTED, f'"{method.encode()!r}" requires exactly one request message.'


def exception_text(error: Exception, doing: str) -> str:
    """The details for an exception from a handler; `doing` as in "calling application"."""
    try:
        return f"Exception {doing}: {error}"
    except Exception:
        return "Calling application raised unprintable Exception!"


def too_much_metadata(
    limits: SizeLimits, block: bytes, pairs: Iterable[Any]
) -> tuple[grpc.StatusCode, str] | None:
    """Return how a call ends if the metadata of its answer, sent as `block`, is too large."""
    if len(block) <= limits.light:
        return None
    text = limits.excess(pairs)
    if text is None:
        return None
    return grpc.StatusCode.RESOURCE_EXHAUSTED, f"Stream removed ({text})"


def trailer_pairs(code: int, details: str, metadata: Pairs) -> list[tuple[str, Any]]:
    """The metadata that grpcio would count for a trailer."""
    return [("grpc-status", str(code)), ("grpc-message", details), *metadata]


def debug_text(code: grpc.StatusCode, details: str) -> str:
    """grpcio's debug_error_string for a status from the other side or the core."""
    if code is grpc.StatusCode.OK:
        return ""
    return f"{code.name}:{details}" if details else code.name


DEADLINE_DEBUG = debug_text(*DEADLINE_EXCEEDED)


def refusal(error: InvalidMetadata) -> tuple[grpc.StatusCode, str]:
    """Return how a call with metadata that cannot be sent ends, on either side."""
    if isinstance(error, OversizedMetadata):
        return grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)
    return grpc.StatusCode.INTERNAL, "Invalid metadata"


def sent_too_large(role: str, size: int, limit: int) -> tuple[grpc.StatusCode, str]:
    """Return how a call ends if its message is too large; `role` is CLIENT or SERVER."""
    text = f"{role}: Sent message larger than max ({size} vs. {limit})"
    return grpc.StatusCode.RESOURCE_EXHAUSTED, text


def received_too_large(size: int, limit: int) -> str:
    """The text for a received message that is too large, on either side."""
    return f"Received message larger than max ({size} vs. {limit})"


def no_memory(size: int) -> str:
    """The details for a message that cannot be allocated."""
    return f"no memory for a message of {size} bytes"

"""Which metadata of a call are passed on.

gRPC's keys that begin with `grpc-`, and HTTP's that describe one connection (RFC 9110, 7.6.1) or
one message's encoding, are about the way from one process to the next; each way has its own.
"""

from __future__ import annotations

from collections.abc import Iterable

Pairs = tuple[tuple[str, "str | bytes"], ...]

_ONE_WAY = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)
_END_TO_END = frozenset(
    {
        "grpc-previous-rpc-attempts",
        "grpc-retry-pushback-ms",
        "grpc-status-details-bin",
        "grpc-tags-bin",
        "grpc-trace-bin",
    }
)
"""Keys of gRPC that are between a client and the server of its call."""


def passed_on(metadata: Iterable[tuple[str, str | bytes]]) -> Pairs:
    """Return the pairs that go from one side to the other, in order."""
    return tuple((key, value) for key, value in metadata if _travels(key))


def _travels(key: str) -> bool:
    if key.startswith("grpc-"):
        return key in _END_TO_END
    return key not in _ONE_WAY and not key.startswith(":")

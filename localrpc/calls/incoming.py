"""What a server knows of a call that has arrived, and which calls it refuses for their size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from localrpc import status
from localrpc.errors import RemoteProtocolError
from localrpc.metadata import Metadatum, Pairs, SizeLimits
from localrpc.wire import codec

LONG_NAME = 512
"""Bytes; a longer method name counts toward the size limit of a call's metadata."""

SECURITY_TYPE = "transport_security_type"
_LEVELS = {"insecure": b"TSI_SECURITY_NONE", "local": b"TSI_PRIVACY_AND_INTEGRITY"}


def metadata_of(agent: str, head: bytes) -> Pairs:
    """Return a call's metadata as its handler sees it; `agent` is its client's user agent.

    Raises RemoteProtocolError.
    """
    return (Metadatum("user-agent", agent), *codec.decode_metadata(head))


def refusal(limits: SizeLimits, name: str, agent: str, head: bytes) -> tuple[int, str] | None:
    """Return how a call of the method `name` ends if its metadata is unacceptable."""
    if len(head) <= limits.light and len(name) < LONG_NAME:
        return None
    try:
        pairs = metadata_of(agent, head)
    except RemoteProtocolError as error:
        return status.INTERNAL, str(error)
    text = limits.excess([(":path", name), *pairs])
    return (status.RESOURCE_EXHAUSTED, text) if text else None


def identities(security: str) -> Sequence[bytes] | None:
    """Return peer_identities() of a call that arrived with `security`, "local" or "insecure"."""
    return [b"local"] if security == "local" else None


def identity_key(security: str) -> str | None:
    """Return peer_identity_key() of such a call."""
    return SECURITY_TYPE if security == "local" else None


def auth_context(security: str) -> Mapping[str, Sequence[bytes]]:
    """Return auth_context() of such a call."""
    return {SECURITY_TYPE: [security.encode()], "security_level": [_LEVELS[security]]}

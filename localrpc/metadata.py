"""Metadata: which pairs gRPC allows, and the pairs that users see.

Types are checked as grpcio's Cython layer does, with its exceptions and texts; the content is
checked as its C core does (`validate_metadata.cc`), and callers see INTERNAL, "Invalid metadata".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from localrpc.errors import InvalidMetadata


class _Metadatum(NamedTuple):
    """One pair; grpcio's own type of this name prints and compares the same."""

    key: str
    value: str | bytes


Metadatum = _Metadatum
Pairs = tuple[_Metadatum, ...]

# grpcio accepts these from a user silently, and does not deliver them.
RESERVED = frozenset(
    {
        "content-type",
        "grpc-encoding",
        "grpc-message",
        "grpc-status",
        "grpc-timeout",
        "te",
    }
)
# A client's own value is replaced by the channel's; a server's is delivered.
USER_AGENT = "user-agent"

OVERHEAD = 32
"""What HTTP/2 counts for a pair in addition to its bytes; the size limits include it."""

_KEY_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789_.-"
_VALUE_BYTES = bytes(range(0x20, 0x7F))


def _encoded(text: Any) -> bytes:
    if text is None:
        return b""
    if isinstance(text, bytes):
        return text
    if isinstance(text, str):
        return text.encode("utf-8", "surrogatepass")
    raise TypeError(f"Expected str, not {type(text)}")


def check_pairs(metadata: Iterable[Any] | None) -> list[tuple[bytes, bytes]]:
    """Return the user's metadata as bytes, without reserved keys.

    Raises TypeError or ValueError for anything but pairs of strings, and InvalidMetadata for
    pairs that gRPC does not allow.
    """
    pairs: list[tuple[bytes, bytes]] = []
    for item in metadata or ():
        key, value = item
        name = _encoded(key)
        if name.endswith(b"-bin"):
            if not isinstance(value, bytes):
                raise TypeError(
                    f'Binary metadata key="{name.decode("utf-8", "replace")}" expected bytes,'
                    f" got {type(value)}"
                )
            pairs.append((name, value))
        else:
            pairs.append((name, _encoded(value)))
    checked = []
    for name, data in pairs:
        text = name.decode("utf-8", "replace")
        check_pair(text, data)
        if text not in RESERVED:
            checked.append((name, data))
    return checked


def check_pair(key: str, value: bytes) -> None:
    """Raise InvalidMetadata, naming the key, the error and what is allowed, for a bad pair."""
    if not key or key.strip(_KEY_CHARACTERS):
        what = f"Illegal header key {key!r}" if key else "Metadata keys cannot be zero length"
        raise InvalidMetadata(
            f"Invalid metadata: {what} (a key is made of a-z, 0-9, '-', '_' and '.')"
        )
    if not key.endswith("-bin") and value.strip(_VALUE_BYTES):
        raise InvalidMetadata(
            f"Invalid metadata: Illegal header value for key {key!r} (a value is printable"
            f" ASCII; bytes need a key that ends with '-bin')"
        )


def metadatum(key: str, value: bytes) -> _Metadatum:
    """Return a received pair as users see it."""
    return _Metadatum(key, value if key.endswith("-bin") else value.decode("ascii"))


def _random() -> float:
    # Imported by few programs otherwise, and hardly ever needed.
    from random import random

    return random()


class SizeLimits:
    """The sizes of a metadata block that a side accepts, as in grpcio.

    Above `soft`, blocks are refused at random, the more likely the closer they are to `hard`;
    from `hard` on, all are refused. Bytes are counted as in HTTP/2, with OVERHEAD for each pair.
    """

    def __init__(self, soft: int, hard: int) -> None:
        self.soft = soft
        self.hard = hard
        # On the wire a pair takes at least 7 bytes, of which 6 are not counted; and the other
        # fields (a method, an agent, a status) are well below the 2,048.
        self.light = max((min(soft, hard) - 2048) // 5, -1)
        """An encoded block of at most this many bytes is within both limits; -1 if none is."""

    def excess(self, pairs: Iterable[tuple[str, str | bytes]]) -> str | None:
        """Return grpcio's text for metadata beyond the limits, or None."""
        sizes = []
        total = 0
        for key, value in pairs:
            length = len(value) if isinstance(value, bytes) else len(value.encode())
            if length >= self.hard:
                return (
                    "received metadata size exceeds hard limit"
                    f" (value length {length} vs. {self.hard})"
                )
            size = len(key) + length + OVERHEAD
            sizes.append(f"{key}:{size}B")
            total += size
        if total <= self.soft and total < self.hard:
            return None
        if total >= self.hard:
            words = f"exceeds hard limit ({total} vs. {self.hard});"
            option = "grpc.absolute_max_metadata_size"
        elif _random() < (total - self.soft) / (self.hard - self.soft):
            words = f"exceeds soft limit ({total} vs. {self.soft});"
            option = "grpc.max_metadata_size"
        else:
            return None
        return (
            f"received metadata size {words}  {' '.join(sizes)[:512]}"
            f" (the receiver's option {option} raises it)"
        )

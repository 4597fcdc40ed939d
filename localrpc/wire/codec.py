"""Converts control payloads to bytes and back.

Encoding raises TypeError, ValueError or InvalidMetadata for metadata that cannot be sent; decoding
raises RemoteProtocolError and nothing else.

Metadata and Trailer have a hand-written fast path, because they are part of calls: protobuf's own
classes take several times as long for a few pairs. Whatever the fast path does not recognise at
once is left to protobuf.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from localrpc.errors import InvalidMetadata, OversizedMetadata, RemoteProtocolError
from localrpc.metadata import Metadatum, Pairs, check_pair, check_pairs, metadatum
from localrpc.wire.frames import BLOCK_MAX
from localrpc.wire.messages import GoawayProto, HelloProto, MetadataProto, TrailerProto

_METADATA_TAG = b"\x0a"
_TRAILER_TAG = b"\x1a"

# The same few pairs travel with most calls of a program: an agent, a token, a
# tenant. Both caches are emptied when full, and hold short blocks only.
_CACHE_ENTRIES = 256
_CACHE_BLOCK = 1024
_encoded: dict[tuple[bytes, Any], bytes] = {}
_decoded: dict[bytes, Pairs] = {}
_trailers: dict[bytes, Trailer] = {}
_keys: dict[bytes, tuple[str, bool]] = {}
_prefixes: dict[str, tuple[bytes, bool]] = {}

_new = tuple.__new__  # half the time of calling a NamedTuple
_BYTES = [bytes((number,)) for number in range(0x80)]
_HEADS = {tag: [tag + byte for byte in _BYTES] for tag in (_METADATA_TAG, _TRAILER_TAG)}


class _Unusual(Exception):
    """The fast path does not apply; use the general one."""


class Hello(NamedTuple):
    """The first frame from either side; the fields are those of wire.proto."""

    version_min: int
    version_max: int
    window: int
    ring_size: int = 0
    agent: str = ""
    refusal: str = ""
    memory_refusal: str = ""
    pid: int = 0
    memory: str = ""
    memory_names: tuple[str, ...] = ()
    going: bool = False
    page_size: int = 0
    group: str = ""
    worker: int = 0
    features: int = 0
    """The sum of those that this side has: frames.COUNTS_BEGUN, frames.SHOWS_LOAD."""


class Trailer(NamedTuple):
    """How a call ended."""

    code: int = 0
    details: str = ""
    metadata: Pairs = ()


_OK = Trailer()


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _encode_pairs(metadata: Iterable[Any] | None, tag: bytes) -> bytes:
    if not metadata:
        # Also any false value that is not a sequence, like grpcio's `metadata or ()`.
        return b""
    slot = None
    if type(metadata) is tuple:
        slot = (tag, metadata)
        try:
            known = _encoded.get(slot)
        except TypeError:  # a pair written as a list has no hash
            slot = None
        else:
            if known is not None:
                return known
    if not isinstance(metadata, Sequence):
        metadata = tuple(metadata)  # the general path iterates over it again
    try:
        block = _encode_usual(metadata, _HEADS[tag])
    except _Unusual:
        block = _encode_any(metadata, tag)
    if len(block) > BLOCK_MAX:
        raise OversizedMetadata(
            f"Metadata is too large: {len(block)} bytes, and a frame has room for {BLOCK_MAX};"
            " send large values in a message"
        )
    if slot is not None and len(block) <= _CACHE_BLOCK:
        if len(_encoded) >= _CACHE_ENTRIES:
            _encoded.clear()
        _encoded[slot] = block
    return block


def _encode_usual(metadata: Iterable[Any], heads: list[bytes]) -> bytes:
    """Encode pairs of known keys and short values; raises _Unusual for anything else."""
    block = b""
    for item in metadata:
        if len(item) != 2:
            raise _Unusual
        key, value = item
        known = _prefixes.get(key) if type(key) is str else None
        if known is None:
            raise _Unusual
        prefix, binary = known
        if not binary:
            if type(value) is not str or not (value.isascii() and value.isprintable()):
                raise _Unusual
            value = value.encode()
        elif type(value) is not bytes:
            raise _Unusual
        size = len(value)
        whole = len(prefix) + 1 + size
        if whole >= 0x80:
            raise _Unusual
        block += heads[whole] + prefix + _BYTES[size] + value
    return block


def _encode_any(metadata: Iterable[Any], tag: bytes) -> bytes:
    parts = []
    for key, value in check_pairs(metadata):
        prefix = b"\x0a%b%b\x12" % (_varint(len(key)), key)
        pair = b"%b%b%b" % (prefix, _varint(len(value)), value)
        parts.append(b"%b%b%b" % (tag, _varint(len(pair)), pair))
        if len(_prefixes) >= _CACHE_ENTRIES:
            _prefixes.clear()
        _prefixes[key.decode()] = (prefix, key.endswith(b"-bin"))
    return b"".join(parts)


def encode_metadata(metadata: Iterable[Any] | None) -> bytes:
    """Return an encoded Metadata message for a user's metadata; empty if there is none."""
    return _encode_pairs(metadata, _METADATA_TAG)


def encode_trailer(code: int, details: str = "", metadata: Iterable[Any] | None = None) -> bytes:
    """Return an encoded Trailer message; empty for OK without details and metadata.

    Details that do not fit in a frame beside the metadata are cut, and marked so.
    """
    pairs = _encode_pairs(metadata, _TRAILER_TAG)
    parts = []
    if code:
        parts.append(b"\x08" + _varint(code))
    if details:
        text = details.encode("utf-8", "replace")
        room = BLOCK_MAX - len(pairs) - 16
        if len(text) > room:
            mark = b" ... (cut)"
            text = text[: max(0, room - len(mark))].decode("utf-8", "ignore").encode() + mark
        parts.append(b"\x12%b%b" % (_varint(len(text)), text))
    parts.append(pairs)
    return b"".join(parts)


def _key(raw: bytes) -> tuple[str, bool]:
    try:
        key = raw.decode("ascii")
        check_pair(key, b"")
    except ValueError:
        raise RemoteProtocolError(f"metadata with the illegal key {raw!r}") from None
    if len(_keys) >= _CACHE_ENTRIES:
        _keys.clear()
    known = _keys[raw] = (key, key.endswith("-bin"))
    return known


def _pairs(data: bytes, pos: int, tag: int) -> Pairs:
    """Decode pairs. Raises IndexError or _Unusual if protobuf has to decode them."""
    end = len(data)
    pairs = []
    while pos < end:
        size = data[pos + 1]
        if data[pos] != tag:
            raise _Unusual
        pos += 2
        if size >= 0x80:
            size = size & 0x7F | data[pos] << 7
            if data[pos] >= 0x80:
                raise _Unusual
            pos += 1
        key_size = data[pos + 1]
        stop = pos + size
        middle = pos + 2 + key_size
        if data[pos] != 0x0A or key_size >= 0x80 or data[middle] != 0x12 or stop > end:
            raise _Unusual
        raw = data[pos + 2 : middle]
        key, binary = _keys.get(raw) or _key(raw)
        value_size = data[middle + 1]
        pos = middle + 2
        if value_size >= 0x80:
            value_size = value_size & 0x7F | data[pos] << 7
            if data[pos] >= 0x80:
                raise _Unusual
            pos += 1
        if pos + value_size != stop:
            raise _Unusual
        value = data[pos:stop]
        if binary:
            pairs.append(_new(Metadatum, (key, value)))
        else:
            text = value.decode("latin-1")
            if not (text.isascii() and text.isprintable()):
                raise RemoteProtocolError(f"metadata key {key!r} has an illegal value")
            pairs.append(_new(Metadatum, (key, text)))
        pos = stop
    return tuple(pairs)


def _checked(pairs: Iterable[Any]) -> Pairs:
    try:
        for pair in pairs:
            check_pair(pair.key, pair.value)
    except InvalidMetadata as error:
        raise RemoteProtocolError(str(error)) from None
    return tuple(metadatum(pair.key, pair.value) for pair in pairs)


def decode_metadata(data: bytes) -> Pairs:
    """Return the pairs of an encoded Metadata message."""
    if not data:
        return ()
    known = _decoded.get(data)
    if known is not None:
        return known
    try:
        pairs = _pairs(data, 0, 0x0A)
    except (IndexError, _Unusual, RemoteProtocolError):  # what is illegal may be replaced later
        pairs = _checked(_parse(MetadataProto, data).pairs)
    if len(data) <= _CACHE_BLOCK:
        if len(_decoded) >= _CACHE_ENTRIES:
            _decoded.clear()
        _decoded[data] = pairs
    return pairs


def decode_trailer(data: bytes) -> Trailer:
    """Decode a Trailer. Empty data means OK without details and metadata."""
    if not data:
        return _OK
    known = _trailers.get(data)
    if known is not None:
        return known
    trailer = _trailer(data)
    if len(data) <= _CACHE_BLOCK:
        if len(_trailers) >= _CACHE_ENTRIES:
            _trailers.clear()
        _trailers[data] = trailer
    return trailer


def _trailer(data: bytes) -> Trailer:
    code, details, pos = 0, "", 0
    try:
        if data[0] == 0x08 and data[1] < 0x80:
            code, pos = data[1], 2
        if pos < len(data) and data[pos] == 0x12:
            size = data[pos + 1]
            stop = pos + 2 + size
            if size >= 0x80 or stop > len(data):
                raise _Unusual
            details = data[pos + 2 : stop].decode()
            pos = stop
        return Trailer(code, details, _pairs(data, pos, 0x1A))
    except (IndexError, UnicodeDecodeError, _Unusual, RemoteProtocolError):
        message = _parse(TrailerProto, data)
        return Trailer(message.code, message.details, _checked(message.metadata))


def _parse(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except (DecodeError, ValueError) as error:
        # ValueError: protobuf's pure Python form raises it for a string that is not UTF-8.
        name = kind.DESCRIPTOR.name
        raise RemoteProtocolError(f"{name} of {len(data)} bytes: {error}") from None


def encode_hello(hello: Hello) -> bytes:
    message: Any = HelloProto(**hello._asdict())
    return bytes(message.SerializeToString())


def decode_hello(data: bytes) -> Hello:
    message = _parse(HelloProto, data)
    fields = {name: getattr(message, name) for name in Hello._fields}
    fields["memory_names"] = tuple(fields["memory_names"])
    return Hello(**fields)


def encode_goaway(reason: str) -> bytes:
    message: Any = GoawayProto(reason=reason)
    return bytes(message.SerializeToString())

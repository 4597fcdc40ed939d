"""Control payloads.

Invariants: what one side encodes, protobuf and the other side decode to the
same; any bytes give a value or RemoteProtocolError, nothing else.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from hypothesis import example, given
from hypothesis import strategies as st

from localrpc.errors import InvalidMetadata, RemoteProtocolError
from localrpc.metadata import RESERVED, Metadatum
from localrpc.wire import codec, messages
from localrpc.wire.codec import (
    Hello,
    Trailer,
    decode_hello,
    decode_metadata,
    decode_trailer,
    encode_goaway,
    encode_hello,
    encode_metadata,
    encode_trailer,
)
from localrpc.wire.frames import BLOCK_MAX

PROTO = Path(__file__).parents[2] / "proto"

_names = st.from_regex(r"[a-z0-9_.\-]{1,200}", fullmatch=True)
_pairs = st.lists(
    st.one_of(
        st.tuples(
            _names.filter(lambda key: not key.endswith("-bin") and key not in RESERVED),
            st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=400),
        ),
        st.tuples(_names.map(lambda key: key + "-bin"), st.binary(max_size=400)),
    ),
    max_size=6,
)


@pytest.fixture(autouse=True)
def _cold_caches() -> None:
    for cache in (codec._encoded, codec._decoded, codec._keys, codec._prefixes):
        cache.clear()


def _parsed(kind: Any, data: bytes) -> Any:
    return kind.FromString(data)


@given(_pairs)
def test_protobuf_reads_the_metadata_we_write(pairs: list[tuple[str, Any]]) -> None:
    for _ in range(2):  # the second time with keys the encoder knows
        message = _parsed(messages.MetadataProto, encode_metadata(pairs))
        assert [(pair.key, pair.value) for pair in message.pairs] == [
            (key, value.encode() if isinstance(value, str) else value) for key, value in pairs
        ]


@given(_pairs)
def test_metadata_survives_the_wire(pairs: list[tuple[str, Any]]) -> None:
    block = encode_metadata(tuple(pairs))
    assert decode_metadata(block) == tuple(pairs)
    assert decode_metadata(block) == tuple(pairs)
    assert encode_metadata(tuple(pairs)) == block
    assert all(type(pair) is Metadatum for pair in decode_metadata(block))


@given(st.integers(0, 16), st.one_of(st.just(""), st.text(max_size=300)), _pairs)
def test_a_trailer_survives_the_wire(code: int, details: str, pairs: list[tuple[str, Any]]) -> None:
    block = encode_trailer(code, details, pairs)
    readable = details.encode("utf-8", "replace").decode()
    assert decode_trailer(block) == (code, readable, tuple(pairs))
    message = _parsed(messages.TrailerProto, block)
    assert (message.code, message.details, len(message.metadata)) == (code, readable, len(pairs))


@given(st.binary(max_size=60))
@example(b"\x0a")
@example(b"\x0a\x05\x0a\x01a\x12\x7f")
@example(b"\x0a\x04\x0a\x7fa\x12")
@example(b"\x0a\x85\x80\x80\x80\x00\x0a\x01a\x12\x00")
def test_any_bytes_are_metadata_or_a_protocol_error(data: bytes) -> None:
    _agrees_with_protobuf(decode_metadata, messages.MetadataProto, data)


@given(st.binary(max_size=60))
@example(b"\x08")
@example(b"\x12\x01\xff")
@example(b"\x08\x01\x12\x05abc")
@example(b"\x08\x01\x08\x02")
def test_any_bytes_are_a_trailer_or_a_protocol_error(data: bytes) -> None:
    _agrees_with_protobuf(decode_trailer, messages.TrailerProto, data)


@given(_pairs, st.data())
def test_damaged_metadata_is_metadata_or_a_protocol_error(
    pairs: list[tuple[str, Any]], data: st.DataObject
) -> None:
    block = bytearray(encode_metadata(pairs))
    if block:
        at = data.draw(st.integers(0, len(block) - 1))
        block[at] ^= 1 << data.draw(st.integers(0, 7))
    _agrees_with_protobuf(decode_metadata, messages.MetadataProto, bytes(block))


def _agrees_with_protobuf(decode: Any, kind: Any, data: bytes) -> None:
    """Ours says no to all that protobuf refuses, and reads the rest alike or refuses a pair."""
    try:
        ours = decode(data)
    except RemoteProtocolError:
        return
    theirs = kind.FromString(data)
    if isinstance(ours, Trailer):
        assert (ours.code, ours.details) == (theirs.code, theirs.details)
        ours, theirs = ours.metadata, theirs.metadata
    else:
        theirs = theirs.pairs
    assert [(pair.key, pair.value) for pair in theirs] == [
        (pair.key, pair.value if isinstance(pair.value, bytes) else pair.value.encode())
        for pair in ours
    ]


@given(st.binary(max_size=60))
def test_any_bytes_are_a_hello_or_a_protocol_error(data: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        decode_hello(data)


def test_a_later_versions_fields_are_skipped() -> None:
    unknown = b"\x7a\x03new"
    assert decode_metadata(encode_metadata([("a", "b")]) + unknown) == (("a", "b"),)
    assert decode_trailer(encode_trailer(5, "no") + unknown) == Trailer(5, "no")
    assert decode_hello(encode_hello(Hello(1, 2, 3)) + unknown) == Hello(1, 2, 3)


def test_empty_messages_are_no_bytes() -> None:
    assert encode_metadata(None) == encode_metadata(()) == b""
    assert encode_trailer(0) == b""
    assert decode_metadata(b"") == ()
    assert decode_trailer(b"") == Trailer()


def test_a_hello_survives_the_wire() -> None:
    hello = Hello(1, 7, 1 << 40, 65536, "agent", "no", "no memory")
    assert decode_hello(encode_hello(hello)) == hello


def test_a_goaway_says_why() -> None:
    said = messages.GoawayProto.FromString(encode_goaway("stopping"))
    assert said == messages.GoawayProto(reason="stopping")


@pytest.mark.parametrize(
    "pair", [("Upper", b"x"), ("", b"x"), ("a", b"\n"), ("a", b"\x80"), ("é", b"x")]
)
def test_metadata_that_grpc_forbids_is_a_fault_of_the_peer(pair: tuple[str, bytes]) -> None:
    message: Any = messages.MetadataProto(pairs=[{"key": pair[0], "value": pair[1]}])
    with pytest.raises(RemoteProtocolError):
        decode_metadata(message.SerializeToString())


def test_metadata_that_fits_no_frame_is_refused_with_its_size() -> None:
    with pytest.raises(InvalidMetadata, match=str(BLOCK_MAX)):
        encode_metadata([("a", "x" * BLOCK_MAX)])


def test_details_that_fit_no_frame_are_cut() -> None:
    block = encode_trailer(13, "é" * BLOCK_MAX, [("a", "b")])
    assert len(block) <= BLOCK_MAX
    trailer = decode_trailer(block)
    assert trailer.details.endswith("é ... (cut)")
    assert trailer.metadata == (("a", "b"),)


def test_an_iterator_is_read_once() -> None:
    assert decode_metadata(encode_metadata(iter([("a", "b"), ("a", "c")]))) == (
        ("a", "b"),
        ("a", "c"),
    )


def test_the_caches_stay_small() -> None:
    for number in range(3 * codec._CACHE_ENTRIES):
        decode_metadata(encode_metadata(((f"key-{number}", str(number)),)))
        decode_metadata(encode_metadata((("big", f"{number}" + "x" * codec._CACHE_BLOCK),)))
    for cache in (codec._encoded, codec._decoded, codec._keys, codec._prefixes):
        assert len(cache) <= codec._CACHE_ENTRIES
    assert all(len(block) <= codec._CACHE_BLOCK for block in codec._encoded.values())


def test_the_embedded_descriptor_is_that_of_the_proto_file(tmp_path: Path) -> None:
    out = tmp_path / "descriptor"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{PROTO}",
            f"--descriptor_set_out={out}",
            "localrpc/v1/wire.proto",
        ],
        check=True,
    )
    compiled = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file[0]
    assert descriptor_pb2.FileDescriptorProto.FromString(messages.DESCRIPTOR) == compiled


def test_a_program_may_compile_the_same_file(tmp_path: Path) -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{PROTO}",
            f"--python_out={tmp_path}",
            "localrpc/v1/wire.proto",
        ],
        check=True,
    )
    script = (
        "import runpy, localrpc.wire.messages;"
        f"runpy.run_path({str(tmp_path / 'localrpc/v1/wire_pb2.py')!r})"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=PROTO.parent)

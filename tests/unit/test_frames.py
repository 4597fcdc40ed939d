"""Frame headers. The invariant: any 16 bytes give a Header or RemoteProtocolError."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrpc.errors import RemoteProtocolError
from localrpc.wire import frames
from localrpc.wire.frames import FLAGS_OF, Flag, FrameType, Header, decode_header, encode_header


def test_the_header_is_little_endian_and_16_bytes() -> None:
    header = encode_header(FrameType.OPEN, 0x0102, flags=Flag.MESSAGE, cpu=3, call=0x0A0B)
    assert header == bytes.fromhex("02010000 03 01 0300 0b0a000000000000")


@given(
    st.sampled_from(FrameType),
    st.integers(0, frames.PAYLOAD_MAX),
    st.integers(0, 0xFFFF),
    st.integers(0, (1 << 64) - 1),
)
def test_a_header_survives_the_wire(kind: FrameType, length: int, cpu: int, call: int) -> None:
    flags = Flag(int(FLAGS_OF[kind]) & ~Flag.BIG)
    data = encode_header(kind, length, flags=flags, cpu=cpu, call=call)
    assert decode_header(data) == Header(length, kind, flags, cpu, call)


@given(st.binary(min_size=0, max_size=20))
def test_any_bytes_give_a_header_or_a_protocol_error(data: bytes) -> None:
    try:
        header = decode_header(data)
    except RemoteProtocolError:
        return
    assert (
        encode_header(
            header.type, header.length, flags=header.flags, cpu=header.cpu, call=header.call
        )
        == data
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (encode_header(FrameType.HELLO, 0)[:15], "not 15"),
        (b"\0\0\0\0\x0b" + bytes(11), "unknown frame type 11"),
        (encode_header(FrameType.DATA, 0, flags=1), "DATA frame with unknown flags 0x1"),
        (encode_header(FrameType.STATUS, 0, flags=Flag.END), "STATUS frame with unknown flags"),
        (encode_header(FrameType.OPEN, 24, flags=5), "OPEN frame with two messages"),
        (encode_header(FrameType.MESSAGE, 65537), "MESSAGE frame of 65537 bytes, limit 65536"),
        (encode_header(FrameType.DATA, 262129), "DATA frame of 262129 bytes, limit 262128"),
    ],
)
def test_a_bad_header_is_refused_by_name(data: bytes, words: str) -> None:
    with pytest.raises(RemoteProtocolError, match=words):
        decode_header(data)


def test_the_core_has_the_same_numbers() -> None:
    from localrpc._core import lib

    for kind in FrameType:
        assert getattr(lib, f"LR_T_{kind.name}") == kind
    for flag in (Flag.MESSAGE, Flag.END, Flag.BIG, Flag.UNSEEN):
        assert getattr(lib, f"LR_F_{flag.name}") == flag
    assert lib.LR_HEADER_SIZE == frames.HEADER_SIZE
    assert lib.LR_MAX_CONTROL == frames.PAYLOAD_MAX
    assert lib.LR_MAX_FRAME == frames.DATA_MAX + frames.HEADER_SIZE
    assert lib.LR_INLINE == frames.INLINE_MAX
    assert lib.LR_OVERHEAD == frames.CHARGE_OVERHEAD

"""The numbers of the wire, and its 16-byte frame header.

The C core has the same numbers; a test compares them.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import NamedTuple

from localrpc.errors import RemoteProtocolError

VERSION_MIN = 1
VERSION_MAX = 1

HEADER_SIZE = 16
PAYLOAD_MAX = 65536
"""The most payload bytes in any frame except DATA."""
DATA_MAX = 262144 - HEADER_SIZE
INLINE_MAX = 32768
"""Bytes; a longer message is sent as BIG: its size in one frame, its bytes in DATA frames."""
BLOCK_MAX = PAYLOAD_MAX - INLINE_MAX - 64
"""The most bytes in a metadata block or trailer: they leave room for any inline message."""
HELLO_MAX = 4096
NAME_MAX = 8192
"""The most bytes in a method's full name."""
CHARGE_OVERHEAD = 64
"""What a message costs of its call's credit in addition to its bytes."""
CPU_UNKNOWN = 0
COUNTS_BEGUN = 1
"""A feature in a HELLO: the server counts the calls that it gives to handlers in its ring."""
SHOWS_LOAD = 2
"""A feature in a HELLO: the client takes a descriptor of the server's load, or the server sends
one."""


class FrameType(IntEnum):
    HELLO = 1
    METHOD = 2
    OPEN = 3
    MESSAGE = 4
    DATA = 5
    HEADERS = 6
    STATUS = 7
    RESET = 8
    CREDIT = 9
    GOAWAY = 10


class Flag(IntFlag):
    NONE = 0
    MESSAGE = 1
    END = 2
    BIG = 4
    UNSEEN = 8


FLAGS_OF: dict[FrameType, Flag] = {
    FrameType.HELLO: Flag.NONE,
    FrameType.METHOD: Flag.NONE,
    FrameType.OPEN: Flag.MESSAGE | Flag.END | Flag.BIG,
    FrameType.MESSAGE: Flag.MESSAGE | Flag.END | Flag.BIG,
    FrameType.DATA: Flag.NONE,
    FrameType.HEADERS: Flag.NONE,
    FrameType.STATUS: Flag.MESSAGE | Flag.BIG,
    FrameType.RESET: Flag.UNSEEN,
    FrameType.CREDIT: Flag.NONE,
    FrameType.GOAWAY: Flag.END,
}
"""The flags that each type may have; any other bit is an error of the sender."""

_HEADER = struct.Struct("<IBBHQ")


class Header(NamedTuple):
    """`cpu` is the sender's CPU number plus one; 0 if it is not known."""

    length: int
    type: FrameType
    flags: Flag
    cpu: int
    call: int


def encode_header(
    frame_type: FrameType, length: int, *, flags: int = 0, cpu: int = CPU_UNKNOWN, call: int = 0
) -> bytes:
    return _HEADER.pack(length, frame_type, flags, cpu, call)


def decode_header(data: bytes) -> Header:
    """Decode a header. Raises RemoteProtocolError for an invalid type, flag or length."""
    if len(data) != HEADER_SIZE:
        raise RemoteProtocolError(f"a frame header is {HEADER_SIZE} bytes, not {len(data)}")
    length, number, flags, cpu, call = _HEADER.unpack(data)
    try:
        frame_type = FrameType(number)
    except ValueError:
        raise RemoteProtocolError(f"unknown frame type {number}") from None
    # As ints: ~ of an IntFlag turns only the known bits.
    if flags & ~int(FLAGS_OF[frame_type]):
        raise RemoteProtocolError(f"{frame_type.name} frame with unknown flags {flags:#x}")
    if flags & Flag.MESSAGE and flags & Flag.BIG:
        raise RemoteProtocolError(f"{frame_type.name} frame with two messages")
    limit = DATA_MAX if frame_type is FrameType.DATA else PAYLOAD_MAX
    if length > limit:
        raise RemoteProtocolError(f"{frame_type.name} frame of {length} bytes, limit {limit}")
    return Header(length, frame_type, Flag(flags), cpu, call)

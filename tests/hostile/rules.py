"""What PROTOCOL.md forbids and what it allows, one row each, for a peer of either role.

A row's `act` acts as the peer, from a point where one call is open: for a client's
rows a request stream of `reads_nothing`, whose server has sent nothing yet; for a server's
rows a call of the client that waits for its answer. `broken` says whether that
breaks the protocol, so that the connection ends.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from localrpc._core import lib
from localrpc.wire import frames
from localrpc.wire.frames import FLAGS_OF, FrameType

MESSAGE, END, BIG, UNSEEN = lib.LR_F_MESSAGE, lib.LR_F_END, lib.LR_F_BIG, lib.LR_F_UNSEEN
SLOT = 1 << 32
WINDOW = 4 << 20
"""Of either side, unless a test says otherwise."""

HELLO, METHOD, OPEN, DATA = lib.LR_T_HELLO, lib.LR_T_METHOD, lib.LR_T_OPEN, lib.LR_T_DATA
MESSAGE_FRAME, HEADERS, STATUS = lib.LR_T_MESSAGE, lib.LR_T_HEADERS, lib.LR_T_STATUS
RESET, CREDIT, GOAWAY = lib.LR_T_RESET, lib.LR_T_CREDIT, lib.LR_T_GOAWAY


class Peer(Protocol):
    call: int

    def put(
        self, kind: int, payload: bytes = b"", flags: int = 0, call: int | None = None
    ) -> None: ...


class Row(NamedTuple):
    section: int
    text: str
    act: Callable[[Peer], None]
    broken: bool = True
    unread: bool = False
    """True if it is broken only while the receiver reads nothing."""

    def __str__(self) -> str:
        return f"{self.section} {self.text}"


def u32(number: int) -> bytes:
    return struct.pack("<I", number)


def u64(number: int) -> bytes:
    return struct.pack("<Q", number)


def method(number: int, name: bytes = b"/station/echo") -> bytes:
    return u32(number) + name


def opening(number: int = 1, head: bytes = b"", rest: bytes = b"", length: int = -1) -> bytes:
    return struct.pack("<IIq", number, len(head) if length < 0 else length, -1) + head + rest


def status(trailer: bytes = b"", rest: bytes = b"", length: int = -1) -> bytes:
    return u32(len(trailer) if length < 0 else length) + trailer + rest


def pair(key: bytes, value: bytes) -> bytes:
    """A Metadata of one pair of fewer than 2**14 bytes."""

    def field(tag: bytes, data: bytes) -> bytes:
        size = len(data)
        length = bytes((size,)) if size < 128 else bytes((size & 127 | 128, size >> 7))
        return tag + length + data

    return field(b"\x0a", field(b"\x0a", key) + field(b"\x12", value))


def says(
    kind: int, payload: bytes = b"", flags: int = 0, call: int | None = None
) -> Callable[[Peer], None]:
    return lambda peer: peer.put(kind, payload, flags, call)


def after(*acts: Callable[[Peer], None]) -> Callable[[Peer], None]:
    def act(peer: Peer) -> None:
        for one in acts:
            one(peer)

    return act


def begins_large(size: int = 100, flags: int = 0) -> Callable[[Peer], None]:
    return says(MESSAGE_FRAME, u64(size), BIG | flags)


_ONE_MESSAGE = says(MESSAGE_FRAME, b"x", MESSAGE)
_END = says(MESSAGE_FRAME, b"", END)
_CONNECTIONS = (METHOD, GOAWAY)

_GOOD = {
    METHOD: method(9),
    OPEN: opening(),
    MESSAGE_FRAME: b"",
    DATA: b"",
    HEADERS: pair(b"k", b"v"),
    STATUS: status(),
    RESET: u32(1),
    CREDIT: u64(0),
    GOAWAY: b"",
}
_SENDERS = {
    "client": (METHOD, OPEN, MESSAGE_FRAME, DATA, RESET, CREDIT),
    "server": (MESSAGE_FRAME, DATA, HEADERS, STATUS, RESET, CREDIT, GOAWAY),
}


def _id_of(kind: int) -> int | None:
    if kind in _CONNECTIONS:
        return 0
    return SLOT + 1 if kind == OPEN else None


def _frames(role: str) -> Iterator[Row]:
    """Section 1: types, roles, flags, lengths."""
    for kind in (0, 11, 77, 255):
        yield Row(1, f"type {kind}", says(kind))
    yield Row(1, "a second HELLO", says(HELLO, call=0))
    for kind in FrameType:
        name = kind.name
        if kind == HELLO:
            continue
        if kind not in _SENDERS[role]:
            yield Row(7, f"{name} from a {role}", says(kind, _GOOD[kind], call=_id_of(kind)))
            continue
        for bit in range(8):
            if not FLAGS_OF[kind] & 1 << bit:
                flags = 1 << bit | (END if kind in (OPEN, MESSAGE_FRAME) else 0)
                act = says(kind, _GOOD[kind], flags, _id_of(kind))
                if kind == DATA:
                    act = after(begins_large(), says(DATA, b"x", flags))
                yield Row(1, f"{name} with flag {1 << bit:#x}", act)
        if kind in _CONNECTIONS:
            yield Row(1, f"{name} of a call", says(kind, _GOOD[kind], call=SLOT))
        limit = frames.DATA_MAX if kind == DATA else frames.PAYLOAD_MAX
        if kind != DATA:  # a link refuses to carry the frame above that
            act = says(kind, _GOOD[kind].ljust(limit + 1, b"\0"), MESSAGE, _id_of(kind))
            yield Row(1, f"{name} of {limit + 1} bytes", act)
    yield Row(1, "RESET without a code", says(RESET, b"abc"))
    for size in (0, 7, 9):
        yield Row(1, f"CREDIT of {size} bytes", says(CREDIT, bytes(size)))
    yield Row(1, "MESSAGE without any flag", says(MESSAGE_FRAME))
    yield Row(1, "a message without its flag", says(MESSAGE_FRAME, b"x", END))
    yield Row(1, "MESSAGE and BIG", says(MESSAGE_FRAME, u64(8), MESSAGE | BIG))
    for size in (0, 7, 9):
        yield Row(7, f"BIG with {size} bytes of size", says(MESSAGE_FRAME, bytes(size), BIG))
    yield Row(7, "BIG of size 0", says(MESSAGE_FRAME, u64(0), BIG))
    yield Row(7, "BIG beyond all bounds", says(MESSAGE_FRAME, u64((1 << 64) - 1), BIG))


def _messages() -> Iterator[Row]:
    """Sections 4 to 6: what either role may say of a call, and when."""
    yield Row(4, "a message inside another", after(begins_large(), _ONE_MESSAGE))
    yield Row(4, "BIG inside another", after(begins_large(), begins_large()))
    yield Row(4, "END inside a message", after(begins_large(), says(DATA, bytes(99)), _END))
    yield Row(4, "DATA without a message", says(DATA, b"x"))
    yield Row(4, "DATA beyond its size", after(begins_large(), says(DATA, bytes(101))))
    two = (says(DATA, bytes(60)), says(DATA, bytes(41)))
    yield Row(4, "DATA beyond its size, in two", after(begins_large(), *two))
    whole = (begins_large(), says(DATA, bytes(100)))
    yield Row(4, "DATA after a whole message", after(*whole, says(DATA, b"x")))
    yield Row(7, "a message after END", after(_END, _ONE_MESSAGE))
    yield Row(7, "BIG after END", after(_END, begins_large()))
    yield Row(7, "END twice", after(_END, _END))
    yield Row(7, "a message after a large one with END", after(begins_large(100, END), *whole[1:],
                                                              _ONE_MESSAGE))  # fmt: skip
    yield Row(5, "CREDIT beyond what is outstanding", says(CREDIT, u64(1 << 30)))
    yield Row(5, "CREDIT of all there is", says(CREDIT, u64((1 << 64) - 1)))


def _client() -> Iterator[Row]:
    yield Row(1, "METHOD without a name", says(METHOD, u32(9), call=0))
    yield Row(1, "METHOD cut short", says(METHOD, b"abc", call=0))
    long = method(9, b"/" + bytes(frames.NAME_MAX))
    yield Row(1, "METHOD with a name too long", says(METHOD, long, call=0))
    yield Row(1, "METHOD with a number too large", says(METHOD, method(1 << 20), call=0))
    yield Row(1, "METHOD with number 0", says(METHOD, method(0), call=0))
    names = [says(METHOD, method(2 + n, b"/" + b"n" * 8191), call=0) for n in range(8)]
    yield Row(1, "METHOD beyond all names' bytes", after(*names))
    yield Row(3, "METHOD twice", says(METHOD, method(1), call=0))
    new = SLOT + 1
    yield Row(7, "OPEN cut short", says(OPEN, opening()[:15], call=new))
    yield Row(7, "OPEN, metadata longer than it", says(OPEN, opening(length=1), call=new))
    yield Row(7, "OPEN, metadata of 2**32-1", says(OPEN, opening(length=(1 << 32) - 1), call=new))
    block = bytes(frames.BLOCK_MAX + 1)
    yield Row(1, "OPEN, metadata above the limit", says(OPEN, opening(head=block), call=new))
    yield Row(1, "OPEN with bytes too many", says(OPEN, opening(rest=b"x"), END, new))
    yield Row(1, "OPEN, MESSAGE and BIG", says(OPEN, opening(rest=u64(8)), 7, new))
    yield Row(3, "OPEN, message without END", says(OPEN, opening(rest=b"x"), MESSAGE, new))
    yield Row(3, "OPEN, BIG without END", says(OPEN, opening(rest=u64(9)), BIG, new))
    yield Row(3, "OPEN, number never given", says(OPEN, opening(8), call=new))
    yield Row(3, "OPEN, number out of bounds", says(OPEN, opening((1 << 32) - 1), call=new))
    for text, block in _BAD_NAMES.items():
        yield Row(3, f"OPEN with {text}", says(OPEN, opening(0, block), call=new))
    yield Row(3, "OPEN of a live call", says(OPEN, opening()))
    yield Row(3, "OPEN of a live slot", says(OPEN, opening(), call=2 * SLOT))
    for call in (0, 1, SLOT + 65_536, (1 << 64) - 1):
        yield Row(3, f"OPEN with id {call:#x}", says(OPEN, opening(), call=call))
    yield Row(5, "messages beyond the window", _beyond_the_window(WINDOW))
    yield Row(5, "empty messages beyond the window", _many_empty(WINDOW // 64 + 1))

    yield Row(3, "OPEN with its method's name", _named, False)
    yield Row(3, "frames of a call that is not live", _late, False)
    yield Row(3, "RESET twice", after(says(RESET, u32(1)), says(RESET, u32(1))), False)
    yield Row(3, "OPEN of a slot whose call was reset",
              after(says(RESET, u32(1)), says(OPEN, opening(), call=2 * SLOT)), False)  # fmt: skip
    yield Row(3, "frames behind RESET", after(says(RESET, u32(1)), _late_too), False)
    yield Row(3, "a timeout of any size", _timeouts, False)
    yield Row(3, "a method that does not exist", _unknown_method, False)
    yield from _allowed_of_both()


def _server() -> Iterator[Row]:
    yield Row(7, "STATUS cut short", says(STATUS, b"abc"))
    yield Row(7, "STATUS, trailer longer than it", says(STATUS, status(length=1)))
    yield Row(7, "STATUS, trailer of 2**32-1", says(STATUS, status(length=(1 << 32) - 1)))
    yield Row(1, "STATUS with bytes too many", says(STATUS, status(rest=b"x")))
    yield Row(1, "STATUS, MESSAGE and BIG", says(STATUS, status(rest=u64(8)), MESSAGE | BIG))
    yield Row(7, "STATUS, BIG of size 0", says(STATUS, status(rest=u64(0)), BIG))
    block = bytes(frames.BLOCK_MAX + 1)
    yield Row(1, "HEADERS above the limit", says(HEADERS, block))
    yield Row(1, "STATUS, trailer above the limit", says(STATUS, status(block)))
    headers = says(HEADERS, pair(b"k", b"v"))
    yield Row(3, "HEADERS twice", after(headers, headers))
    yield Row(3, "HEADERS after a message", after(_ONE_MESSAGE, headers))
    yield Row(3, "HEADERS after END", after(_END, headers))
    yield Row(4, "HEADERS inside a message", after(begins_large(), headers))
    large = says(STATUS, status(rest=u64(100)), BIG)
    yield Row(4, "HEADERS inside a status's message", after(large, headers))
    yield Row(4, "STATUS inside a message", after(begins_large(), says(STATUS, status())))
    yield Row(4, "STATUS inside a message being read",
              after(begins_large(), says(DATA, b"x"), says(STATUS, status())))  # fmt: skip
    yield Row(4, "STATUS inside a status's message", after(large, says(STATUS, status())))
    yield Row(4, "END inside a status's message", after(large, _END))
    yield Row(4, "DATA beyond a status's message", after(large, says(DATA, bytes(101))))
    for size in (0, 7, 9):
        act = says(GOAWAY, bytes(size), END, 0)
        yield Row(6, f"the last GOAWAY of {size} bytes", act)
    yield Row(6, "GOAWAY counts too many", says(GOAWAY, u64(1000), END, 0))
    last = says(GOAWAY, u64(1), END, 0)
    yield Row(6, "STATUS after the last GOAWAY", after(last, says(STATUS, status())))
    yield Row(6, "GOAWAY after the last", after(last, last))
    yield Row(5, "messages beyond the window", _beyond_the_window(WINDOW), unread=True)
    many = _many_empty(WINDOW // 64 + 1)
    yield Row(5, "empty messages beyond the window", many, unread=True)

    yield Row(6, "GOAWAY with a reason", says(GOAWAY, b"\x0a\x03why", call=0), False)
    yield Row(6, "GOAWAY twice", after(*[says(GOAWAY, b"", call=0)] * 2), False)
    yield Row(3, "frames of a call that is not live", _late, False)
    yield Row(3, "HEADERS of no bytes", says(HEADERS), False)
    yield Row(3, "HEADERS, then a message", after(headers, _ONE_MESSAGE), False)
    yield from _allowed_of_both()


def _allowed_of_both() -> Iterator[Row]:
    yield Row(1, "any CPU number", lambda peer: None, False)
    yield Row(4, "empty DATA in a message",
              after(begins_large(), says(DATA), says(DATA, bytes(100))), False)  # fmt: skip
    yield Row(4, "empty DATA without a message", says(DATA), False)
    yield Row(4, "a large message of 1 byte", after(begins_large(1), says(DATA, b"x")), False)
    yield Row(4, "a large message cut anywhere",
              after(begins_large(), *[says(DATA, b"x")] * 100), False)  # fmt: skip
    yield Row(4, "65,536 bytes in one MESSAGE", says(MESSAGE_FRAME, bytes(65_536), MESSAGE), False)
    yield Row(4, "CREDIT 0 inside a message", after(begins_large(), says(CREDIT, u64(0)),
                                                   says(DATA, bytes(100))), False)  # fmt: skip
    yield Row(5, "CREDIT 0, many times", after(*[says(CREDIT, u64(0))] * 50), False)
    large = after(begins_large(WINDOW * 2), *[says(DATA, bytes(1 << 16))] * (WINDOW >> 15))
    yield Row(5, "one message larger than the window", large, False)
    full = after(*[says(MESSAGE_FRAME, bytes(32_704), MESSAGE)] * (WINDOW // 32_768))
    yield Row(5, "a window's worth of messages", full, False)


_BAD_NAMES = {
    "no name": b"",
    "an empty name": u32(0) + b"x",
    "a name cut short": u32(9) + b"/a/b",
    "a name's length alone": u32(1),
    "a name too long": u32(frames.NAME_MAX + 1) + bytes(frames.NAME_MAX + 1),
    "a name of 2**32-1": u32((1 << 32) - 1) + b"/a/b",
    "a name and metadata above the limit": u32(1) + b"/" + bytes(frames.BLOCK_MAX + 1),
}


def _named(peer: Peer) -> None:
    for slot, name in enumerate((b"/station/echo", b"/", b"/no/such" * 1000), 1):
        block = u32(len(name)) + name + pair(b"k", b"v" * 2000)
        peer.put(OPEN, opening(0, block, b"x"), MESSAGE | END, SLOT + slot)


def _beyond_the_window(window: int) -> Callable[[Peer], None]:
    return after(*[says(MESSAGE_FRAME, bytes(32_704), MESSAGE)] * (window // 32_768), _ONE_MESSAGE)


def _many_empty(count: int) -> Callable[[Peer], None]:
    def act(peer: Peer) -> None:
        for _ in range(count):
            peer.put(MESSAGE_FRAME, b"", MESSAGE)

    return act


def _late(peer: Peer) -> None:
    for call in (0, 1, SLOT + 9, SLOT + 70_000, (1 << 64) - 1):
        peer.put(MESSAGE_FRAME, b"x", MESSAGE, call)
        peer.put(DATA, b"x", 0, call)
        peer.put(CREDIT, u64(1 << 40), 0, call)
        peer.put(RESET, u32(1), 0, call)


def _late_too(peer: Peer) -> None:
    _ONE_MESSAGE(peer)
    _END(peer)
    peer.put(DATA, b"x")
    peer.put(CREDIT, u64(1 << 40))


def _timeouts(peer: Peer) -> None:
    for slot, timeout in enumerate((-(1 << 63), -1, 0, 1, (1 << 63) - 1), 1):
        peer.put(OPEN, struct.pack("<IIq", 1, 0, timeout), 0, SLOT + slot)


def _unknown_method(peer: Peer) -> None:
    peer.put(METHOD, method(7, b"\xff/no such\n"), 0, 0)
    peer.put(OPEN, opening(7), END, SLOT + 7)


ROWS = {
    "client": [*_frames("client"), *_messages(), *_client()],
    "server": [*_frames("server"), *_messages(), *_server()],
}

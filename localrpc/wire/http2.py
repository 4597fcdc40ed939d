"""What a gRPC client that speaks HTTP/2 hears from a server that does not: one answer.

Sans-I/O. Its first call ends with a status and the text, at once; SETTINGS and GOAWAY alone
would have it connect again and again, and leave the call to its deadline.
"""

from __future__ import annotations

import struct
from urllib.parse import quote

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_HEADERS, _SETTINGS, _GOAWAY = 1, 4, 7
_ACK = 1
_END_STREAM_AND_HEADERS = 5
_LARGEST = 16384
"""Bytes of a frame, as long as nobody has agreed to more."""
_PATIENCE = 1 << 18
"""Bytes after which nobody listens any more."""
_PRINTABLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _text(text: bytes) -> bytes:
    """A string of HPACK's, as it is: its length in 7 bits and as many more as it takes."""
    left = len(text)
    if left < 127:
        return bytes([left]) + text
    size = bytearray([127])
    left -= 127
    while left >= 128:
        size.append(left % 128 + 128)
        left //= 128
    size.append(left)
    return bytes(size) + text


def _field(name: str, value: str) -> bytes:
    """A header field that no table has or is to keep."""
    return b"\0" + _text(name.encode()) + _text(value.encode())


class Answerer:
    """Takes what a client sends and gives what to send back; `done` once a call has its answer."""

    def __init__(self, code: int, text: str) -> None:
        self._code = code
        self._message = text
        self._data = bytearray()
        self._taken = 0
        self._greeted = False
        self.done = False

    def receive(self, data: bytes) -> bytes:
        """Raises ValueError for what is no HTTP/2."""
        self._taken += len(data)
        if self._taken > _PATIENCE:
            raise ValueError(f"more than {_PATIENCE} bytes of HTTP/2")
        if self.done:
            return b""
        self._data += data
        answer = b""
        if not self._greeted:
            if not PREFACE.startswith(self._data[: len(PREFACE)]):
                raise ValueError("it began as HTTP/2 does, and went on as something else")
            if len(self._data) < len(PREFACE):
                return b""
            del self._data[: len(PREFACE)]
            self._greeted = True
            answer = _frame(_SETTINGS, 0, 0, b"")
        while not self.done and len(self._data) >= 9:
            size = int.from_bytes(self._data[:3], "big")
            if size > _LARGEST:
                raise ValueError(f"an HTTP/2 frame of {size} bytes")
            if len(self._data) < 9 + size:
                break
            kind, flags, stream = struct.unpack_from(">BBI", self._data, 3)
            del self._data[: 9 + size]
            if kind == _SETTINGS and not flags & _ACK:
                answer += _frame(_SETTINGS, _ACK, 0, b"")
            elif kind == _HEADERS:
                answer += self._answer(stream & 0x7FFFFFFF)
                self.done = True
        return answer

    def _answer(self, stream: int) -> bytes:
        fields = (
            b"\x88"  # :status 200, from the static table
            + _field("content-type", "application/grpc")
            + _field("grpc-status", str(self._code))
            + _field("grpc-message", quote(self._message, safe=_PRINTABLE))
        )
        farewell = struct.pack(">II", stream, 0) + self._message.encode()
        return _frame(_HEADERS, _END_STREAM_AND_HEADERS, stream, fields) + _frame(
            _GOAWAY, 0, 0, farewell
        )

"""Answers a gRPC client that speaks HTTP/2 to a localrpc server: one status, one text.

Sans-I/O. The client's first call ends at once with the status and the text; with SETTINGS and
GOAWAY alone it would connect again and again until the call's deadline.
"""

from __future__ import annotations

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_HEADERS, _SETTINGS, _GOAWAY = 1, 4, 7
_ACK = 1
_END_STREAM_AND_HEADERS = 5
_LARGEST = 16384
"""The most bytes in a frame until the peers agree on another limit."""
_PATIENCE = 1 << 18
"""Bytes after which the connection is given up."""
_PRINTABLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _text(text: bytes) -> bytes:
    """Return an HPACK string literal: the length in 7 bits and more as needed, then the text."""
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
    """Return a literal header field that is not indexed."""
    return b"\0" + _text(name.encode()) + _text(value.encode())


class Answerer:
    """Takes what a client sends and returns what to send back; `done` once a call is answered."""

    def __init__(self, code: int, text: str) -> None:
        self._code = code
        self._message = text
        self._data = bytearray()
        self._taken = 0
        self._greeted = False
        self.done = False

    def receive(self, data: bytes) -> bytes:
        """Take bytes from the client; return the bytes to send. Raises ValueError if not HTTP/2."""
        self._taken += len(data)
        if self._taken > _PATIENCE:
            raise ValueError(f"more than {_PATIENCE} bytes of HTTP/2")
        if self.done:
            return b""
        self._data += data
        answer = b""
        if not self._greeted:
            if not PREFACE.startswith(self._data[: len(PREFACE)]):
                raise ValueError("it began as HTTP/2, and went on as something else")
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
        from urllib.parse import quote

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

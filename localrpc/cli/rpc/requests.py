"""Reads requests from JSON: objects in sequence, one per line, or in one array."""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from localrpc.cli.rpc.errors import Misuse

_CHUNK = 1 << 16
# A JSON string has no line break in it, so each line can be examined alone.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]]')
_DEPTH = {"{": 1, "[": 1, "}": -1, "]": -1}
_SPACE = re.compile(r"[ \t\r\n]*")
# Messages whose own JSON may be an array.
_ARRAYS = ("google.protobuf.ListValue", "google.protobuf.Value")


def requests_of(
    data: Iterable[str], descriptor: Descriptor, pool: DescriptorPool
) -> Iterator[Message]:
    """Yield messages from each `-d`: JSON, @FILE, or - for stdin. Raises Misuse for a bad one."""
    message_class = GetMessageClass(descriptor)
    number = 0
    for item in data:
        for value in _values(_lines(item), unwrap=descriptor.full_name not in _ARRAYS):
            number += 1
            if not isinstance(value, dict) and descriptor.file.package != "google.protobuf":
                raise Misuse(f"request {number} is not a JSON object: {json.dumps(value)[:30]}")
            try:
                yield json_format.ParseDict(value, message_class(), descriptor_pool=pool)
            except (json_format.ParseError, TypeError) as error:
                words = " ".join(str(error).split())
                raise Misuse(f"request {number} is not a {descriptor.full_name}: {words}") from None


def _values(lines: Iterable[str], *, unwrap: bool) -> Iterator[Any]:
    """Yield top-level JSON values, each as soon as its last line has been read.

    With `unwrap`, the elements of an array are yielded instead of the array.
    """
    reader = _Reader(unwrap)
    buffer: list[str] = []
    depth = 0
    for line in lines:
        buffer.append(line)
        depth += sum(_DEPTH.get(token, 0) for token in _TOKEN.findall(line))
        # Parse complete values only: a try after each line would take quadratic time.
        if depth <= 0 or (depth == 1 and reader.enters_array(buffer[0])):
            yield from reader.read("".join(buffer))
            buffer.clear()
    yield from reader.read("".join(buffer))
    if reader.in_array:
        raise Misuse("the array of requests is not closed: ']' is missing")


class _Reader:
    def __init__(self, unwrap: bool) -> None:
        self._unwrap = unwrap
        self._decoder = json.JSONDecoder()
        self.in_array = False
        self._comma = False
        """In an array: True if a value has come since the last comma."""

    def enters_array(self, text: str) -> bool:
        return self.in_array or (self._unwrap and text.lstrip().startswith("["))

    def read(self, text: str) -> Iterator[Any]:
        """Yield the values in a text that ends between values."""
        at = _skip(text, 0)
        while at < len(text):
            sign = text[at]
            if not self.in_array and self._unwrap and sign == "[":
                self.in_array, self._comma = True, False
                at += 1
            elif self.in_array and sign == "]":
                self.in_array = False
                at += 1
            elif self.in_array and self._comma and sign == ",":
                self._comma = False
                at += 1
            elif self.in_array and self._comma:
                raise Misuse(f"not JSON: ',' or ']' expected before {_some(text, at)}")
            else:
                try:
                    value, at = self._decoder.raw_decode(text, at)
                except json.JSONDecodeError as error:
                    raise Misuse(f"not JSON: {error.msg} at {_some(text, error.pos)}") from None
                except RecursionError:
                    raise Misuse("not JSON that can be read: nested too deeply") from None
                self._comma = True
                yield value
            at = _skip(text, at)


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    assert space is not None
    return space.end()


def _some(text: str, at: int) -> str:
    return repr(text[at : at + 30]) if at < len(text) else "the end"


def _lines(item: str) -> Iterator[str]:
    try:
        if item == "-":
            yield from _lines_of(0, "stdin")
        elif item.startswith("@"):
            with Path(item[1:]).open("rb") as file:
                yield from _lines_of(file.fileno(), item[1:])
        else:
            yield from item.splitlines(keepends=True)
    except OSError as error:
        raise Misuse(f"-d {item}: {error.strerror}") from None


def _lines_of(descriptor: int, name: str) -> Iterator[str]:
    # Not sys.stdin: a thread that waits in it at exit makes Python abort.
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    rest = ""
    data = b"first"
    while data:
        data = os.read(descriptor, _CHUNK)
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise Misuse(f"-d: {name} is not UTF-8: {error.reason}") from None
        *lines, rest = (rest + text).split("\n")
        yield from (f"{line}\n" for line in lines)
    yield rest

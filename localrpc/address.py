"""Targets in parsed form. The transport of a scheme declares what its targets may contain."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Address(NamedTuple):
    """A target in parsed form; `text` is what the user wrote."""

    scheme: str
    body: str
    options: Mapping[str, Any] = MappingProxyType({})
    text: str = ""

    def __str__(self) -> str:
        return self.text or f"{self.scheme}:{self.body}"


def numbered(address: Address, number: int) -> Address:
    """Return the address whose body ends with a dot and this number; its text is a target."""
    body = f"{address.body}.{number}"
    quoted = body.replace("%", "%25").replace("?", "%3F")
    _, mark, options = str(address).partition("?")
    return address._replace(body=body, text=f"{address.scheme}:{quoted}{mark}{options}")


def unquote(body: str) -> str:
    """Percent-decode as gRPC does: a path with a question mark is written with %3F."""
    raw = os.fsencode(body)
    if b"%" in raw:
        # urllib.parse has this too, but importing it takes every program 4 ms.
        raw = re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes((int(match[1], 16),)), raw)
    return os.fsdecode(raw)


def split_options(query: str) -> Iterator[tuple[str, str]]:
    """Yield names and values in order."""
    for item in query.split("&") if query else ():
        key, _, value = item.partition("=")
        yield key, value

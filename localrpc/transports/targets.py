"""What targets may say: options, and checks of names. Transports list those that they take."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from localrpc.address import Address

SUN_PATH_MAX = 107
"""Bytes of a Unix socket's name: sun_path holds 108 with the final NUL."""

SPIN_AUTO = -1
SPIN_ALWAYS = -2
_SPIN_MAX_US = 1_000_000
_MILLISECONDS_MAX = 60_000

_PLAIN = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"

T = TypeVar("T")


class TargetOption(Generic[T]):
    """An option of targets: `?key=value`."""

    def __init__(
        self,
        key: str,
        default: T,
        parse: Callable[[str], T],
        *,
        values: str,
        text: str,
        shown: str = "",
    ) -> None:
        """`parse` raises ValueError with the fix; `values`, `text` and `shown`, the default in
        words, are for documentation."""
        self.key = key
        self.default = default
        self.parse = parse
        self.values = values
        self.text = text
        self.shown = shown or str(default)

    def of(self, address: Address) -> T:
        value: T = address.options.get(self.key, self.default)
        return value


def choice(key: str, *choices: str, text: str) -> TargetOption[str]:
    """Return an option whose value is one of several words, the first by default."""
    said = f"{', '.join(choices[:-1])} or {choices[-1]}"

    def parse(word: str) -> str:
        if word not in choices:
            raise ValueError(f"use {said}")
        return word

    values = ", ".join(f"`{each}`" for each in choices)
    return TargetOption(key, choices[0], parse, values=values, text=text, shown=f"`{choices[0]}`")


def milliseconds(key: str, default: int, *, text: str) -> TargetOption[int]:
    def parse(number: str) -> int:
        if not re.fullmatch(r"[0-9]{1,5}", number) or not 1 <= int(number) <= _MILLISECONDS_MAX:
            raise ValueError(f"use a number of milliseconds from 1 to {_MILLISECONDS_MAX}")
        return int(number)

    return TargetOption(key, default, parse, values="milliseconds", text=text)


def _spin(text: str) -> int:
    if text in ("auto", "off"):
        return SPIN_AUTO if text == "auto" else 0
    if not re.fullmatch(r"[0-9]{1,7}", text) or int(text) > _SPIN_MAX_US:
        raise ValueError(f"use auto, off or a number of microseconds up to {_SPIN_MAX_US}")
    return int(text)


SPIN = TargetOption(
    "spin",
    SPIN_AUTO,
    _spin,
    values="`auto`, `off`, microseconds",
    text="how long a reader looks for the next frame before it sleeps. It spins only while the"
    " other side was recently active on another core; if it was last active on the same core,"
    " the reader yields to it first",
    shown="`auto`",
)
"""Microseconds, SPIN_AUTO for the budget that measured
best, SPIN_ALWAYS for as long as a call is awaited."""

INTERFACES = choice(
    "interfaces",
    "loopback",
    "any",
    text="`any` lets the target be on, or be reached from, other machines: nothing is encrypted"
    " there, and the user of a peer on another machine is not checked",
)

AnyOption = TargetOption[Any]


def is_elsewhere(address: Address) -> bool:
    """Return True if the other side may be on another machine."""
    return INTERFACES.of(address) == "any"


# Names


def check_characters(body: str) -> None:
    for character in body:
        if character < " " or character == "\x7f":
            raise ValueError(f"the character {character!r} is not allowed in a name")


def check_length(body: str, what: str) -> None:
    size = len(os.fsencode(body))
    if size > SUN_PATH_MAX:
        raise ValueError(
            f"{what} is {size} bytes long, and a Unix socket's name has at most"
            f" {SUN_PATH_MAX}; use a shorter one"
        )


def socket_path(body: str) -> str:
    """Return a socket's path, relative or absolute; `//` may precede an absolute one."""
    if body.startswith("//"):
        body = body[2:]
        if not body.startswith("/"):
            raise ValueError(
                f"after '//' the path must be absolute (write unix:{body} for a relative one)"
            )
    check_characters(body)
    check_length(body, "the path")
    if body.endswith("/"):
        raise ValueError("the path names a directory; add the socket's file name")
    return body


def plain_name(body: str, hint: str = "") -> str:
    """Return a name in the runtime directory."""
    body = body.removeprefix("//")
    if body.strip(_PLAIN) or body.startswith((".", "-")):
        raise ValueError(
            "a name is made of letters, digits, '.', '-' and '_' and does not begin with"
            f" '.' or '-'{hint}"
        )
    check_length(body, "the name")
    return body

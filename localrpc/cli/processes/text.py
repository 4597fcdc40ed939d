"""Text of other processes made harmless, cut to columns of a terminal, and numbers made short."""

from __future__ import annotations

import unicodedata

NONE = "-"
"""What is shown for a value that there is not."""


def escaped(text: str) -> str:
    """Return `text` with a backslash escape for each character that a terminal may act on.

    What another process calls itself could otherwise move the cursor, or reorder the line.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _escape(one) for one in text)


def _escape(one: str) -> str:
    number = ord(one)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def columns_of(text: str) -> int:
    """Return how many columns of a terminal a printable text takes."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(one: str) -> int:
    if unicodedata.category(one) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(one) in "WF" else 1


def cut(text: str, columns: int) -> str:
    """Return the beginning of a printable text, and an ellipsis if that is not all."""
    if columns_of(text) <= columns:
        return text
    return _beginning(text, columns - 1) + "…" if columns > 0 else ""


def cut_inside(text: str, columns: int) -> str:
    """As cut(), without what is in the middle: both ends of a path tell it from others."""
    if columns_of(text) <= columns:
        return text
    if columns < 8:
        return cut(text, columns)
    front = (columns - 1) // 3
    back = _beginning(text[::-1], columns - 1 - front)[::-1]
    return f"{_beginning(text, front)}…{back}"


def wrapped(text: str, columns: int) -> list[str]:
    """Return all of a printable text in lines, broken at spaces where there are any."""
    lines = []
    while columns_of(text) > columns:
        line = _beginning(text, columns) or text[0]
        space = len(line) if text[len(line) :].startswith(" ") else line.rfind(" ")
        if space > 0:
            line = line[:space]
        lines.append(line)
        text = text[len(line) :].removeprefix(" ")
    return [*lines, text]


def _beginning(text: str, columns: int) -> str:
    end = 0
    for one in text:
        columns -= _columns(one)
        if columns < 0:
            break
        end += 1
    return text[:end]


def padded(text: str, columns: int, *, right: bool = False) -> str:
    space = " " * (columns - columns_of(text))
    return space + text if right else text + space


def count(number: float) -> str:
    """Four digits at most; for a whole number five."""
    if number < 0:
        return NONE
    if number == int(number) and number < 100_000:
        return str(int(number))
    if number < 99.95:
        return f"{number:.1f}"
    if number < 10_000:
        return f"{number:.0f}"
    for unit in "kMGTP":
        number /= 1000
        if number < 999.5:
            return _three(number) + unit
    return f"{number:.0f}P"


def size(number: int) -> str:
    """Bytes, in units of 1024 as ps and top have them."""
    if number < 1024:
        return str(number)
    left = float(number)
    for unit in "KMGTP":
        left /= 1024
        if left < 999.5:
            return _three(left) + unit
    return f"{left:.0f}P"


def duration(seconds: float | None) -> str:
    """How long calls last: from nanoseconds to minutes."""
    if seconds is None:
        return NONE
    for unit in ("ns", "us", "ms"):
        scaled = seconds * {"ns": 1e9, "us": 1e6, "ms": 1e3}[unit]
        if scaled < 999.5:
            return (f"{scaled:.0f}" if unit == "ns" else _three(scaled)) + unit
    return f"{_three(seconds)}s"


def age(seconds: float) -> str:
    """The two largest units."""
    left = max(0, int(seconds))
    if left < 60:
        return f"{left}s"
    minutes, left = divmod(left, 60)
    if minutes < 60:
        return f"{minutes}m{left:02}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes:02}m"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours:02}h"


def _three(number: float) -> str:
    """Three digits that count."""
    if number < 9.995:
        return f"{number:.2f}"
    return f"{number:.1f}" if number < 99.95 else f"{number:.0f}"

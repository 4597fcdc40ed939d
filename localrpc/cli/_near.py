"""What a mistyped name may have meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'a' or 'b'?`, or nothing if no known name resembles `name`."""
    lower = {each.lower(): each for each in known}
    near = [repr(lower[each]) for each in get_close_matches(name.lower(), lower)]
    return f"; did you mean {' or '.join(near)}?" if near else ""

"""Suggestions for mistyped names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def near_to(name: str, known: Iterable[str]) -> list[str]:
    """Return the known names that resemble `name`, best first."""
    lower = {each.lower(): each for each in known}
    return [lower[each] for each in get_close_matches(name.lower(), lower)]


def did_you_mean(names: Iterable[str]) -> str:
    """Return `; did you mean 'a' or 'b'?`, or an empty string without names."""
    quoted = " or ".join(map(repr, names))
    return f"; did you mean {quoted}?" if quoted else ""

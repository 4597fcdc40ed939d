"""The result of a check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from .system import System

KIB = 1024
MIB = 1024 * KIB

FEW = 8
"""A limit that allows fewer connections at once than this gets a warning."""


class Verdict(str, Enum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """`found` is what the machine has, `meaning` what follows for which transport."""

    verdict: Verdict
    found: str
    meaning: str = ""
    fix: str = ""
    name: str = ""


def ok(found: str, meaning: str = "") -> Finding:
    return Finding(Verdict.OK, found, meaning)


def warning(found: str, meaning: str, fix: str = "") -> Finding:
    return Finding(Verdict.WARNING, found, meaning, fix)


def problem(found: str, meaning: str, fix: str = "") -> Finding:
    return Finding(Verdict.PROBLEM, found, meaning, fix)


Check = Callable[[System], Finding]


def room(
    found: str,
    connections: int,
    user: str,
    fix: str,
    *,
    beyond: str = "",
    few: int = FEW,
) -> Finding:
    meaning = f"{user} has room for about {connections:,} connections"
    if beyond:
        meaning += f"; {beyond}"
    if connections < few:
        return warning(found, meaning, fix)
    return ok(found, meaning)


def size_text(count: int) -> str:
    for unit, size in (("GiB", 1024 * MIB), ("MiB", MIB), ("KiB", KIB)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"

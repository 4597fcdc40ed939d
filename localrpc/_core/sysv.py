"""System V shared memory: segments by key, for which Python has no module."""

from __future__ import annotations

import os

from localrpc._core import lib

__all__ = ["create", "find", "remove"]


def create(key: int, size: int) -> int:
    """Create a segment for this user alone; return its id. Raises OSError or FileExistsError."""
    return _checked(lib.lr_sysv_create(key, size))


def find(key: int) -> int:
    """Return the id of the segment of that key. Raises OSError if it is missing or forbidden."""
    return _checked(lib.lr_sysv_find(key))


def remove(segment: int) -> None:
    """Remove a segment once no process has it attached; ignore one that is already gone."""
    lib.lr_sysv_remove(segment)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result

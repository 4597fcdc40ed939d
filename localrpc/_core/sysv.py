"""System V shared memory: segments by key, which Python itself does not know."""

from __future__ import annotations

import os

from localrpc._core import lib

__all__ = ["create", "find", "remove"]


def create(key: int, size: int) -> int:
    """The id of a new segment for this user alone. Raises OSError, FileExistsError among them."""
    return _checked(lib.lr_sysv_create(key, size))


def find(key: int) -> int:
    """The id of the segment of that key. Raises OSError when there is none, or not for us."""
    return _checked(lib.lr_sysv_find(key))


def remove(segment: int) -> None:
    """Gone once nobody has it attached; what is gone already is no error."""
    lib.lr_sysv_remove(segment)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result

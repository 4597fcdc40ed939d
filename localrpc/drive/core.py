"""What every driver needs of the core: borrowed Io objects, and the clock."""

from __future__ import annotations

import os
import weakref
from time import monotonic, monotonic_ns
from typing import Any

from localrpc._core import Io, ffi, lib

__all__ = [
    "LONGEST",
    "NEVER",
    "NOW",
    "NULL",
    "SIGNAL_CHECK",
    "Io",
    "WorkerIo",
    "blank",
    "borrow",
    "deadline_of",
    "ffi",
    "idle_ios",
    "lib",
    "limit_of",
    "own_engine",
    "patience",
]

NEVER = 0
"""A deadline that does not exist."""
NOW = 1
"""A deadline that is always over: do not wait."""
NULL: Any = ffi.NULL

SIGNAL_CHECK = None if os.environ.get("LOCALRPC_TIMERS") == "off" else 0.7
"""Seconds after which a wait of the main thread lets Python see its signals.

The kernel may hand a signal to any thread, and the main thread, which has to
run its handler, then sleeps on. Tests switch this off with LOCALRPC_TIMERS=off,
so that it hides no lost wake-up.
"""
lib.lr_signal_check(int((SIGNAL_CHECK or 0) * 1e9))

LONGEST = 3.0e8
"""Seconds, some ten years: a longer timeout is none (and int() refuses infinity)."""


def own_engine(raw: Any) -> Any:
    """`raw`, a new engine, to be freed when nobody holds this object any more.

    A thread inside the core holds it too. Not ffi.gc(): the collector finalizes
    the members of a cycle in any order, and the __del__ of a call would find
    its engine freed; a plain pointer is not for the collector to finalize.
    """
    weakref.finalize(raw, lib.lr_engine_free, ffi.cast("struct lr_engine *", raw)).atexit = False
    return raw


class WorkerIo(Io):
    """`view` is the struct's memory: one unpack() is cheaper than reading its fields."""

    __slots__ = ("view",)

    def __init__(self) -> None:
        super().__init__()
        self.view: Any = ffi.buffer(self.raw)


idle_ios: list[Io] = []
"""The pool; list.pop and list.append are atomic."""


def blank(size: int) -> bytes:
    """Bytes whose content is undefined, for the core to fill before anybody sees them.

    bytes(size) would fill them with zeros first, a tenth of what a 1 MiB echo takes.
    """
    global _new_bytes
    if _new_bytes is None:
        from ctypes import c_ssize_t, c_void_p, py_object, pythonapi

        _new_bytes = pythonapi.PyBytes_FromStringAndSize
        _new_bytes.restype = py_object
        _new_bytes.argtypes = (c_void_p, c_ssize_t)
    message: bytes = _new_bytes(None, size)
    return message


_new_bytes: Any = None


def borrow() -> Io:
    """An Io that nobody else uses; append it to idle_ios after use, or lose it."""
    try:
        return idle_ios.pop()
    except IndexError:
        return Io()


def patience(left: float | None) -> float | None:
    """How long to wait on a lock of Python's before looking again, `left` at most."""
    if left is None or SIGNAL_CHECK is None:
        return SIGNAL_CHECK if left is None else left
    return min(left, SIGNAL_CHECK)


def deadline_of(timeout: float | None) -> int:
    """A call's, on time.monotonic_ns()'s clock; NEVER for None.

    As in grpcio it has passed if `timeout` is NaN. Raises TypeError for what is no number.
    """
    if timeout is None or timeout > LONGEST:
        return NEVER
    return monotonic_ns() + (int(timeout * 1e9) if timeout > 0 else 0)


def limit_of(timeout: float | None) -> int:
    """Until when a wait may last, on the same clock; NEVER for None, and for NaN.

    Raises TypeError for what is no number, in the words of grpcio's waits.
    """
    if timeout is None or not monotonic() + timeout < monotonic() + LONGEST:
        return NEVER
    return monotonic_ns() + (int(timeout * 1e9) if timeout > 0 else 0)

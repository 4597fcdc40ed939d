"""What every driver needs from the core: a pool of Io objects, and deadlines."""

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
    "publish",
]

NEVER = 0
"""The deadline of a wait without a time limit."""
NOW = 1
"""A deadline that has always passed: do not wait."""
NULL: Any = ffi.NULL

SIGNAL_CHECK = None if os.environ.get("LOCALRPC_TIMERS") == "off" else 0.7
"""Seconds after which a wait of the main thread lets Python handle signals.

The kernel may deliver a signal to any thread, while the main thread, which has to run its
Python handler, sleeps on. Tests disable this with LOCALRPC_TIMERS=off, so that it cannot
hide a lost wake-up.
"""
lib.lr_signal_check(int((SIGNAL_CHECK or 0) * 1e9))

LONGEST = 3.0e8
"""Seconds, about ten years: a longer timeout counts as none (and int() rejects infinity)."""


def own_engine(raw: Any) -> Any:
    """Return `raw`, a new engine, which is freed with the last reference to this object.

    A thread inside the core holds a reference, too. ffi.gc() would not be enough: the collector
    finalizes the members of a cycle in any order, and the __del__ of a call would find its engine
    freed; the collector does not finalize a plain pointer.
    """
    weakref.finalize(raw, lib.lr_engine_free, ffi.cast("struct lr_engine *", raw)).atexit = False
    return raw


def publish(engine: Any, name: str, *, note: str = "") -> None:
    """Have `engine` count in the process's page under `name`: a client's target, a server's all.

    `note` is what the process says of itself there, unless it is empty.
    """
    lib.lr_publish(engine, os.fsencode(name))
    if note:
        lib.lr_page_note(note.encode())


class WorkerIo(Io):
    """An Io whose struct is also a buffer, `view`: one unpack() is faster than reading fields."""

    __slots__ = ("view",)

    def __init__(self) -> None:
        super().__init__()
        self.view: Any = ffi.buffer(self.raw)


idle_ios: list[Io] = []
"""The pool of unused Io objects; list.pop and list.append are atomic."""


def blank(size: int) -> bytes:
    """Return bytes with undefined content, for the core to fill before any other code sees them.

    bytes(size) would fill them with zeros first, which costs a tenth of a 1 MiB echo.
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
    """Return an unused Io; append it to idle_ios after use, or drop it."""
    try:
        return idle_ios.pop()
    except IndexError:
        return Io()


def patience(left: float | None) -> float | None:
    """Return how many seconds to wait on a Python lock before checking again, at most `left`."""
    if left is None or SIGNAL_CHECK is None:
        return SIGNAL_CHECK if left is None else left
    return min(left, SIGNAL_CHECK)


def deadline_of(timeout: float | None) -> int:
    """Return the deadline of a call, on the clock of time.monotonic_ns(); NEVER for None.

    As in grpcio it has passed if `timeout` is NaN. Raises TypeError if it is not a number.
    """
    if timeout is None or timeout > LONGEST:
        return NEVER
    return monotonic_ns() + (int(timeout * 1e9) if timeout > 0 else 0)


def limit_of(timeout: float | None) -> int:
    """Return the time limit of a wait, on the same clock; NEVER for None and for NaN.

    Raises TypeError, with the text of grpcio's waits, if `timeout` is not a number.
    """
    if timeout is None or not monotonic() + timeout < monotonic() + LONGEST:
        return NEVER
    return monotonic_ns() + (int(timeout * 1e9) if timeout > 0 else 0)

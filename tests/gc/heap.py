"""Counts localrpc's objects on the heap, with the collector disabled."""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
import types
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import localrpc
from tests.peers import census
from tests.rpc.house import PATIENCE

_HOME = str(Path(localrpc.__file__).parent)
ONCE = {"Io", "WorkerIo"}
"""What is kept for the next call."""


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without the collector, and without log records, which keep the frames of exceptions.

    Objects that exist before are hidden meanwhile: late in a long run of tests they are many.
    """
    gc.disable()
    gc.freeze()
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        gc.unfreeze()
        gc.enable()


def live() -> Counter[str]:
    """Our objects, by their types, those in garbage too."""
    return Counter(name for name in map(_kind, gc.get_objects()) if name)


def _kind(each: object) -> str:
    """Return the name of its type if localrpc defines it."""
    kind = type(each)
    name = f"{kind.__module__}.{kind.__qualname__}"
    return name if name.startswith("localrpc.") and kind.__name__ not in ONCE else ""


def garbage() -> list[str]:
    """What only the collector frees: our objects, and functions and frames of our code."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return [text for text in map(_describe, gc.garbage) if text]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.collect()


def _describe(each: Any) -> str:
    code = getattr(each, "__code__", None) or getattr(each, "f_code", None)
    if isinstance(code, types.CodeType):
        ours = code.co_filename.startswith(_HOME)
        return f"{type(each).__name__} {code.co_name}" if ours else ""
    return _kind(each)


def check(once: Callable[[], object], rounds: int = 20) -> None:
    """`once` leaves nothing behind: nothing alive, nothing in the system, nothing to collect."""
    with uncollected():
        once()  # for what is created only once
        once()
        garbage()
        before, there = live(), census.take()
        for _ in range(rounds):
            once()
        if more := _left(before, there, PATIENCE if rounds > 1 else 1):
            if not set(more) <= {"descriptors"}:
                raise AssertionError(f"left: {more}; to collect: {Counter(garbage())}")
            # A client's second thread in the core comes when it is first needed.
            there = census.take()
            for _ in range(rounds):
                once()
            more = _left(before, there, PATIENCE)
            assert not more, f"left, again: {more}"
        found = garbage()
        assert not found, f"to collect: {Counter(found)}"


def _left(before: Counter[str], there: census.Census, patience: float) -> dict[str, object]:
    """Return what there is more of, once threads have ended and handlers know of their clients."""
    pause, until = 0.01, monotonic() + patience
    while more := _more(before, there):
        if monotonic() > until:
            break
        threading.Event().wait(pause)
        pause = min(2 * pause, 0.5)
    return more


def _more(before: Counter[str], there: census.Census) -> dict[str, object]:
    objects = live() - before
    if objects:
        return dict(objects)
    more = census.difference(there, census.take())
    # A server takes more of its pool's threads when it needs them.
    for kind in ("threads", "tasks"):
        more.pop(kind, None)
    return more


__all__ = ["PATIENCE", "check", "garbage", "live", "uncollected"]

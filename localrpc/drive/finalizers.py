"""Runs what a finalizer may not do itself.

A finalizer (`__del__`, a callback of weakref.finalize or weakref.ref) runs in any thread
at any allocation, also in a thread that holds one of our locks at that moment and
would wait for itself. So a finalizer takes no lock. It may call the core, whose
mutexes nobody holds while running Python; everything else goes through run_later().
"""

from __future__ import annotations

import _thread
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from localrpc import _log

_logger = _log.logger("channel")

_PATIENCE = 5.0
"""Seconds for settle(): at interpreter exit nothing runs any more."""

_waiting: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
_running = _thread.allocate_lock()
"""Held by the thread that runs what waits; nobody ever waits for it."""


def run_later(function: Callable[..., object], *args: Any) -> None:
    """Have `function(*args)` run soon on a thread of its own, in the order of these calls.

    Takes no lock and never blocks. `function` may take locks, but must not wait for a
    peer. At interpreter exit, when no thread can start, it does not run; nor in a
    forked child, whose parent runs it.
    """
    _waiting.append((function, args))
    if _running.acquire(blocking=False):
        try:
            # Not threading.Thread: its start() takes locks.
            _thread.start_new_thread(_run, ())
        except RuntimeError:  # the interpreter is exiting
            _running.release()


def settle() -> None:
    """Wait until all has run that finalizers have left so far. Not for finalizers."""
    if _waiting or _running.locked():
        done = threading.Event()
        run_later(done.set)
        done.wait(_PATIENCE)


def _run() -> None:
    while True:
        try:
            function, args = _waiting.popleft()
        except IndexError:
            _running.release()
            # A finalizer that came in between has found the lock taken.
            if _waiting and _running.acquire(blocking=False):
                continue
            return
        try:
            function(*args)
        except Exception:
            _logger.exception("Exception in a finalizer")
        del function, args  # or they would live on until the next


def _after_fork_in_child() -> None:
    global _running
    _running = _thread.allocate_lock()
    _waiting.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)

"""Runs code on behalf of finalizers, which must not run it themselves.

A finalizer (`__del__`, a callback of weakref.finalize or weakref.ref) runs in any thread
at any allocation, even in a thread that holds one of localrpc's locks, where taking that lock
again would deadlock. So a finalizer takes no lock. It may call the core, whose mutexes are
never held while Python code runs; everything else goes through run_later().
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
"""Seconds that settle() waits: at interpreter exit no more functions run."""

_waiting: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
_running = _thread.allocate_lock()
"""Held by the thread that runs the waiting functions; acquired without blocking only."""


def start_unwaited(function: Callable[[], object], name: str) -> None:
    """Run `function` on a daemon thread of this name, and return before it has begun.

    `Thread.start()` waits until the new thread runs, and that thread may collect garbage first: a
    user's finalizer then runs there, and waits for a lock that the caller of `start()` holds, or a
    frame below it that the garbage collector has interrupted. Raises RuntimeError if there can be
    no further thread, as at the exit of the interpreter.
    """
    _thread.start_new_thread(_start, (function, name))


def _start(function: Callable[[], object], name: str) -> None:
    try:
        threading.Thread(target=function, name=name, daemon=True).start()
    except RuntimeError:  # there can be no second one: this one has no name, but it runs
        function()


def run_later(function: Callable[..., object], *args: Any) -> None:
    """Run `function(*args)` soon on another thread, in the order of these calls.

    Takes no lock and never blocks. `function` may take locks, but must not wait for a
    peer. It does not run at interpreter exit, when no thread can start, nor in a forked child: the
    parent runs it.
    """
    _waiting.append((function, args))
    if _running.acquire(blocking=False):
        try:
            # Not threading.Thread: its start() takes locks.
            _thread.start_new_thread(_run, ())
        except RuntimeError:  # the interpreter is exiting
            _running.release()


def settle() -> None:
    """Wait until all functions that finalizers have passed so far have run. Not for finalizers."""
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
            # A finalizer that ran in between found the lock taken.
            if _waiting and _running.acquire(blocking=False):
                continue
            return
        try:
            function(*args)
        except Exception:
            _logger.exception("Exception in a finalizer")
        del function, args  # or they would live until the next function is run


def _after_fork_in_child() -> None:
    global _running
    _running = _thread.allocate_lock()
    _waiting.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)

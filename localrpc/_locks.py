"""Locks that are free in a forked child, whichever thread of the parent held them.

Only the thread that forks exists in the child. A lock that another thread held at that moment
would stay locked there, so every lock of this package that outlives a call is made here.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

_known: weakref.WeakSet[Any] = weakref.WeakSet()


def Lock() -> threading.Lock:
    lock = threading.Lock()
    _known.add(lock)
    return lock


def RLock() -> Any:
    lock = threading.RLock()
    _known.add(lock)
    return lock


def Condition() -> threading.Condition:
    """Over an RLock(): a user's finalizer may run, and call in, at any allocation.

    Use notify_all(): a waiter of the parent's counts in the child, too.
    """
    return threading.Condition(RLock())


def _after_fork_in_child() -> None:
    # As the standard library does for its own locks.
    for lock in list(_known):
        lock._at_fork_reinit()


os.register_at_fork(after_in_child=_after_fork_in_child)

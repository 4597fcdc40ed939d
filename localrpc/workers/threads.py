"""Threads of a supervisor."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable


def start_thread(run: Callable[[], None], name: str) -> threading.Thread:
    """Start a daemon thread that no signal is delivered to.

    While the main thread has signals blocked, those that come wait for it, or for the program
    that it executes.
    """
    thread = threading.Thread(target=run, name=name, daemon=True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return thread

"""What a supervisor says to the service manager that has started it, if there is one."""

from __future__ import annotations

import os
import time

from localrpc.drive.notify import notify


class Manager:
    """READY, RELOADING and STOPPING, and a sign of life as often as the manager wants one.

    sd_notify(3) and sd_watchdog_enabled(3) describe the messages and variables.
    """

    def __init__(self) -> None:
        pause = os.environ.get("WATCHDOG_USEC", "")
        ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._pause = int(pause) / 2e6 if pause.isdecimal() and ours and int(pause) else None
        """Seconds: half of what the manager allows."""
        self._due = time.monotonic()

    def ready(self, status: str) -> None:
        notify(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        notify(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def stopping(self) -> None:
        notify("STOPPING=1")

    def next_time(self) -> float | None:
        """Return the seconds until keep_alive() has something to do; None for never."""
        return None if self._pause is None else max(0.0, self._due - time.monotonic())

    def keep_alive(self) -> None:
        if self._pause is not None and time.monotonic() >= self._due:
            self._due = time.monotonic() + self._pause
            notify("WATCHDOG=1")

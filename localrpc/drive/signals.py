"""Calls a function on SIGTERM and SIGINT."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def stop_by(stop: Callable[[float | None], object], grace: float | None) -> None:
    """Call `stop` with `grace` on the first SIGTERM or SIGINT, and with None on the second.

    Without a grace the first call gets 0: it must not wait either. `stop` is called by a signal
    handler, so it must not take a lock. A third signal has the action that it had before. Raises
    ValueError outside the main thread, as signal.signal does.
    """
    former = {number: signal.getsignal(number) for number in _SIGNALS}
    seen = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        if seen > 1:
            for each, action in former.items():
                signal.signal(each, signal.SIG_DFL if action is None else action)
        stop(None if seen > 1 else (grace or 0))

    for number in _SIGNALS:
        signal.signal(number, handle)

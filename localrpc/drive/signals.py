"""Calls a function on SIGTERM and SIGINT."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

STOPPING = (signal.SIGTERM, signal.SIGINT)


def former_actions() -> dict[int, Any]:
    """Return what STOPPING do now, as signal.signal() takes it."""
    actions = {number: signal.getsignal(number) for number in STOPPING}
    return {number: signal.SIG_DFL if one is None else one for number, one in actions.items()}


def handler(
    stop: Callable[[float | None], object], grace: float | None, restore: Callable[[], object]
) -> Callable[[], None]:
    """Return what calls `stop` with `grace` the first time, and with None the second time.

    Without a grace the first call gets 0: it must not wait either. Before the second one, `restore`
    gives the signals the actions that they had, for a third.
    """
    seen = 0

    def handle() -> None:
        nonlocal seen
        seen += 1
        if seen > 1:
            restore()
        stop(None if seen > 1 else (grace or 0))

    return handle


def stop_by(stop: Callable[[float | None], object], grace: float | None) -> None:
    """Call `stop` on the first and the second SIGTERM or SIGINT; see handler().

    It is called by a signal handler, so it must not take a lock. Raises ValueError outside the
    main thread, as signal.signal does.
    """
    former = former_actions()

    def restore() -> None:
        for number, action in former.items():
            signal.signal(number, action)

    on_signal = handler(stop, grace, restore)

    def handle(number: int, frame: FrameType | None) -> None:
        on_signal()

    for number in STOPPING:
        signal.signal(number, handle)

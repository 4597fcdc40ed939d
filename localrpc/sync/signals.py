"""A graceful stop on SIGTERM and SIGINT."""

from __future__ import annotations

import signal
import threading
from types import FrameType

import grpc

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def stop_on_signals(server: grpc.Server, grace: float | None = None) -> None:
    """Stop `server` on the first SIGTERM or SIGINT, with `grace` in seconds; at once on the second.

    Call it from the main thread, as signal.signal(). The process goes on after
    wait_for_termination(). A third signal has the action that it had before.
    """
    former = {number: signal.getsignal(number) for number in _SIGNALS}
    seen = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        if seen > 1:
            for each, action in former.items():
                signal.signal(each, signal.SIG_DFL if action is None else action)
        # The main thread may hold a lock of the server at this moment.
        wait = None if seen > 1 else (grace or 0)
        threading.Thread(
            target=server.stop, args=(wait,), name="localrpc-signal", daemon=True
        ).start()

    for number in _SIGNALS:
        signal.signal(number, stop)

"""A graceful stop of an asyncio server on SIGTERM and SIGINT."""

from __future__ import annotations

import asyncio
import signal
import threading

from grpc import aio

from localrpc.drive.signals import STOPPING, former_actions, handler


def stop_on_signals(server: aio.Server, grace: float | None = None) -> None:
    """See localrpc.aio.stop_on_signals."""
    loop = asyncio.get_running_loop()
    if threading.current_thread() is not threading.main_thread():
        raise ValueError("stop_on_signals works only in the main thread")
    stopping: set[asyncio.Task[None]] = set()
    former = former_actions()

    def stop(wait: float | None) -> None:
        task = loop.create_task(server.stop(wait))
        stopping.add(task)
        task.add_done_callback(stopping.discard)

    def restore() -> None:
        for number, action in former.items():
            loop.remove_signal_handler(number)
            signal.signal(number, action)

    # Not signal.signal(): the kernel may give a signal to another thread than the loop's, and
    # only the loop's own handlers wake it up then.
    handle = handler(stop, grace, restore)
    for number in STOPPING:
        loop.add_signal_handler(number, handle)

"""A graceful stop of an asyncio server on SIGTERM and SIGINT."""

from __future__ import annotations

import asyncio

from grpc import aio

from localrpc.drive.signals import stop_by


def stop_on_signals(server: aio.Server, grace: float | None = None) -> None:
    """See localrpc.aio.stop_on_signals."""
    loop = asyncio.get_running_loop()
    stopping: set[asyncio.Task[None]] = set()

    def begin(wait: float | None) -> None:
        task = loop.create_task(server.stop(wait))
        stopping.add(task)
        task.add_done_callback(stopping.discard)

    def stop(wait: float | None) -> None:
        # It runs between two instructions of whatever the loop is doing, and wakes it up.
        loop.call_soon_threadsafe(begin, wait)

    stop_by(stop, grace)

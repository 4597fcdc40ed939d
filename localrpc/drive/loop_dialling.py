"""One attempt to connect, on a thread of its own, for an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from localrpc import _locks
from localrpc.drive.dialling import meet, wake_descriptor, without_frames
from localrpc.errors import ConnectError
from localrpc.transports import Attempt, Connection, Dialer

Then = Callable[["Connection | None", "ConnectError | None"], Any]


class Wake:
    """The descriptor that gives up an attempt; closed by the thread that makes the attempt.

    That thread may outlive the loop, and the loop's owner may give the attempt up at any moment.
    """

    def __init__(self) -> None:
        self._lock = _locks.Lock()
        self.fd = wake_descriptor()

    def give_up(self) -> None:
        with self._lock:
            if self.fd is not None:
                os.eventfd_write(self.fd, 1)

    def close(self) -> None:
        with self._lock:
            self.close_inherited()

    def close_inherited(self) -> None:
        """Close a forked child's copy: the child does not have the thread."""
        fd, self.fd = self.fd, None
        if fd is not None:
            os.close(fd)


def dial_on_thread(
    dialer: Dialer,
    attempt: Attempt,
    wake: Wake,
    loop: asyncio.AbstractEventLoop,
    then: Then,
    target: str,
) -> None:
    """Dial, and call `then` on the loop with the connection or with the error."""
    thread = threading.Thread(
        target=_dial,
        args=(dialer, attempt, wake, loop, then, target),
        name="localrpc-connect",
        daemon=True,
    )
    try:
        thread.start()
    except RuntimeError as error:  # the interpreter is exiting
        wake.close()
        loop.call_soon(then, None, ConnectError(target, str(error)))


def _pause(attempt: Attempt, seconds: float) -> bool:
    attempt.poll(select.poll(), seconds)
    return attempt.left() <= 0


def _dial(
    dialer: Dialer,
    attempt: Attempt,
    wake: Wake,
    loop: asyncio.AbstractEventLoop,
    then: Then,
    target: str,
) -> None:
    connection: Connection | None = None
    failed = None
    try:
        connection = meet(dialer, attempt, partial(_pause, attempt))
    except ConnectError as error:
        failed = without_frames(error)
    except (OSError, MemoryError) as error:
        failed = ConnectError(target, str(error))
    finally:
        wake.close()
    try:
        loop.call_soon_threadsafe(then, connection, failed)
    except RuntimeError:  # the loop is closed
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()

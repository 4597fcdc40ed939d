"""One attempt to connect, for connectors of every API. Blocks; call it on a thread that may."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable

from localrpc.drive.finalizers import run_later
from localrpc.errors import ConnectError
from localrpc.transports import Attempt, Connection, Dialer

TICK = 0.001
"""Seconds by which a wait may end early."""
_PASSING_PAUSES = (0.0, 0.001, 0.005, 0.02, 0.05)
"""Seconds before each further attempt while the server that is found is about to stop."""
_REDIAL_LIMIT = 1.0
"""Seconds that these further attempts may take together: the next server may still be starting,
or there may be none, and a call without wait_for_ready has to fail then."""


class Dialling:
    """Holds a channel's dialer for the channel and its connectors.

    When the last of them has gone, a dialer that makes one connection only is closed: no call may
    ever have used that connection.
    """

    def __init__(self, dialer: Dialer) -> None:
        self.dialer = dialer
        if dialer.single:
            weakref.finalize(self, run_later, dialer.close).atexit = False


def meet(dialer: Dialer, attempt: Attempt, pause: Callable[[float], bool]) -> Connection:
    """Dial; dial again at once if the server was stopping, because another may replace it.

    Only before a call has been sent. `pause` waits so many seconds, and returns True if the
    attempt has been given up. Raises ConnectError.
    """
    try:
        return dialer.dial(attempt)
    except ConnectError as error:
        if not error.passing:
            raise
        first = without_frames(error)
    attempt = attempt.within(_REDIAL_LIMIT)
    for seconds in _PASSING_PAUSES:
        if pause(seconds):
            break
        try:
            return dialer.dial(attempt)
        except ConnectError as error:
            if attempt.left() <= TICK:
                break
            if not error.passing:
                raise
    raise first


def without_frames(error: ConnectError) -> ConnectError:
    """Return `error` without its history, whose frames hold the connector and the error itself."""
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


def wake_descriptor() -> int | None:
    """Return an eventfd that gives an attempt up; None if there is none: then nothing can."""
    try:
        return os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    except OSError:
        return None

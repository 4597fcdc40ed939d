"""What a service manager hears of this process, as by sd_notify(3)."""

from __future__ import annotations

import os
import socket

from localrpc import _log

_logger = _log.logger("server")
_PATIENCE = 2.0
"""Seconds that a manager has to make room for a message."""


def notify(state: str) -> bool:
    """Send `state`, such as READY=1; whether there is a manager and it has got it.

    Never raises: a service works without anybody to tell.
    """
    place = os.environ.get("NOTIFY_SOCKET", "")
    if not place:
        return False
    name: str | bytes = place
    if place.startswith("@"):
        name = b"\0" + os.fsencode(place[1:])
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(_PATIENCE)
            sock.sendto(state.encode(), name)
    except (OSError, ValueError) as error:
        _logger.warning("NOTIFY_SOCKET=%s was not told %s: %s", place, state, error)
        return False
    return True

"""Notifies the service manager of this process, as sd_notify(3) does."""

from __future__ import annotations

import os
import socket

from localrpc import _log

_logger = _log.logger("server")
_PATIENCE = 2.0
"""Seconds that a manager has to make room for a message."""


def notify(state: str) -> bool:
    """Send `state`, such as READY=1. Return True if there is a manager and it was sent.

    Never raises: a service works without a manager, too.
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
        _logger.warning("cannot send %s to NOTIFY_SOCKET=%s: %s", state, place, error)
        return False
    return True

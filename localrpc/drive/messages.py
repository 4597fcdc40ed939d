"""Messages to bytes and back, with user code in between: what can go wrong ends the call.

Nothing here raises what an API raises; it returns how the call ends. What user code raised is
logged, as grpcio does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from localrpc import _log
from localrpc.drive import texts
from localrpc.drive.texts import Ending

_logger = _log.logger("channel")

Serializer = Callable[[Any], bytes] | None
Deserializer = Callable[[bytes], Any] | None


def serialize(request: Any, function: Serializer) -> tuple[Any, Ending | None]:
    """What `function` makes of a request, for check() to look at; or how the call ends."""
    if function is None:
        return request, None
    try:
        return function(request), None
    except Exception:
        return None, unserializable()


def unserializable() -> Ending:
    """For the exception that is being handled."""
    _logger.exception("Exception serializing message!")
    return Ending(*texts.BAD_REQUEST)


def check(message: Any, limit: int) -> Ending | None:
    """How the call ends for a serialized request that cannot be sent; None for one that can.

    `limit` is in bytes; negative means any. Raises TypeError, as grpcio, for anything but bytes
    and None.
    """
    if message is None:
        return Ending(*texts.BAD_REQUEST)
    if not isinstance(message, bytes):
        raise TypeError(
            f"Argument 'message' has incorrect type (expected bytes, got {type(message).__name__})"
        )
    if len(message) > limit >= 0:
        code, details = texts.sent_too_large("CLIENT", len(message), limit)
        return Ending(code, details, texts.debug_text(code, details))
    return None


def deserialize(message: bytes, function: Deserializer) -> tuple[Any, bool]:
    """The response, and whether there is none: an exception is logged, None is as bad."""
    if function is None:
        return message, False
    try:
        response = function(message)
    except Exception:
        unreadable()
        return None, True
    return response, response is None


def unreadable() -> Ending:
    """For the exception that is being handled."""
    _logger.exception("Exception deserializing message!")
    return Ending(*texts.BAD_RESPONSE)

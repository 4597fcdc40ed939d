"""Converts messages to and from bytes with the user's functions; a failure ends the call.

These functions do not raise an API's errors, but return how the call ends. Exceptions from user
code are logged, as grpcio does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from localrpc import _log
from localrpc._later import Later

if TYPE_CHECKING:
    from localrpc.calls import texts
    from localrpc.calls.texts import Ending
else:
    texts = Later("localrpc.calls.texts")

_logger = _log.logger("channel")

Serializer = Callable[[Any], bytes] | None
Deserializer = Callable[[bytes], Any] | None


def serialize(request: Any, function: Serializer) -> tuple[Any, Ending | None]:
    """Return the serialized request, which check() has to accept, or how the call ends."""
    if function is None:
        return request, None
    try:
        return function(request), None
    except Exception:
        return None, unserializable()


def unserializable() -> Ending:
    """Return how the call ends for the exception being handled, after logging it."""
    _logger.exception("Exception serializing message!")
    return texts.Ending(*texts.BAD_REQUEST)


def check(message: Any, limit: int) -> Ending | None:
    """Return how the call ends for a serialized request that cannot be sent; None if it can.

    `limit` is in bytes; a negative one allows any size. Raises TypeError, as grpcio does, for
    anything but bytes and None.
    """
    if message is None:
        return texts.Ending(*texts.BAD_REQUEST)
    if not isinstance(message, bytes):
        raise TypeError(
            f"Argument 'message' has incorrect type (expected bytes, got {type(message).__name__})"
        )
    if len(message) > limit >= 0:
        code, details = texts.sent_too_large("CLIENT", len(message), limit)
        return texts.Ending(code, details, texts.debug_text(code, details))
    return None


def deserialize(message: bytes, function: Deserializer) -> tuple[Any, bool]:
    """Return the response, and True if there is none.

    There is none if `function` returned None, or raised an exception, which is logged.
    """
    if function is None:
        return message, False
    try:
        response = function(message)
    except Exception:
        unreadable()
        return None, True
    return response, response is None


def unreadable() -> Ending:
    """Return how the call ends for the exception being handled, after logging it."""
    _logger.exception("Exception deserializing message!")
    return texts.Ending(*texts.BAD_RESPONSE)

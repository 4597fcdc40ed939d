"""Handlers with grpcio's `experimental_non_blocking`: they answer later, from any thread.

Such a handler is called with a third argument, grpcio's on_next: a function that sends a response,
or ends the call if it is called with None. The call stays open after the handler has returned, and
costs memory, but no thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from localrpc.calls import texts
from localrpc.drive.served import Turns
from localrpc.sync.context import ServicerContext


def answers_later(behaviour: Any) -> bool:
    """Return True if a handler of a response stream takes on_next."""
    return bool(getattr(behaviour, "experimental_non_blocking", False))


class Responder:
    """on_next: send a response, or end the call with None. Thread-safe.

    Blocks while the client has many unread responses to this call, or while the connection is
    full. Has no effect after the end of the call. Raises TypeError if the serialized response is
    not bytes.
    """

    def __init__(self, context: ServicerContext, serialize: Callable[[Any], bytes | None]) -> None:
        self._context = context
        self._serialize = serialize
        self._turns = context._turns = Turns()

    def __call__(self, response: Any) -> None:
        context = self._context
        if response is None:
            context.finish(None)
            return
        message = self._serialize(response)
        if message is None or not context.is_active():
            return
        with self._turns:
            if not context.is_active():
                return
            context.answer.initial_allowed = False
            if not context.send(message, post=True):
                # The thread that watches the call is notified and releases it: this thread may
                # hold a lock that the callbacks wait for.
                context.stop(*texts.CANCELLED_BY_HANDLER)

"""Handlers with grpcio's `experimental_non_blocking`: they answer when they like, from any thread.

Such a handler is called with a third argument, grpcio's on_next: a function that
sends a response, or with None ends the call. The handler's return ends nothing,
so an open call costs memory and no thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from localrpc.drive import texts
from localrpc.drive.served import Turns
from localrpc.sync.context import ServicerContext


def answers_later(behaviour: Any) -> bool:
    """Whether a handler of a response stream wants on_next."""
    return bool(getattr(behaviour, "experimental_non_blocking", False))


class Responder:
    """on_next: send a response, or end the call with None. May be called from any thread.

    Waits while the client has much to read of this call, or nobody reads its connection
    and that is full; after the end of the call it does nothing.
    Raises TypeError for a response that is not bytes once it is serialized.
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
                # Whoever watches is told, and lets go: this thread may hold what
                # the callbacks wait for.
                context.stop(*texts.CANCELLED_BY_HANDLER)

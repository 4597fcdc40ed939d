"""Handlers with grpcio's `experimental_non_blocking`: they answer when they like, from any thread.

Such a handler is called with a third argument, grpcio's on_next: a function that
sends a response, or with None ends the call. The handler's return ends nothing,
so an open call costs memory and no thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from localrpc import status
from localrpc._later import Later
from localrpc.drive.core import NULL, lib

if TYPE_CHECKING:
    from localrpc.sync import context as _context
else:
    _context = Later("localrpc.sync.context")


def answers_later(behaviour: Any) -> bool:
    """Whether a handler of a response stream wants on_next."""
    return bool(getattr(behaviour, "experimental_non_blocking", False))


def pool_of(behaviour: Any) -> ThreadPoolExecutor | None:
    """Where a handler of any kind wants to run, if not on the server's pool."""
    pool = getattr(behaviour, "experimental_thread_pool", None)
    return pool if isinstance(pool, ThreadPoolExecutor) else None


class Turns:
    """Lets one thread send at a time, and the status after the message that is on its way."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._taken = False
        self._last: tuple[Callable[[], None], Callable[[], None]] | None = None

    def __enter__(self) -> None:
        with self._changed:
            while self._taken:
                self._changed.wait()
            self._taken = True

    def __exit__(self, *exc_info: object) -> None:
        with self._changed:
            last, self._last = self._last, None
            if last is None:
                self._give_back()
        if last is not None:
            self._finish(*last)

    def last(self, send: Callable[[], None], then: Callable[[], None]) -> None:
        """Run both, at once or, while another thread sends, on that one after its message."""
        with self._changed:
            if self._taken:
                self._last = send, then
                return
            self._taken = True
        self._finish(send, then)

    def _finish(self, send: Callable[[], None], then: Callable[[], None]) -> None:
        try:
            send()
        finally:
            with self._changed:
                self._give_back()
        then()

    def _give_back(self) -> None:
        self._taken = False
        self._changed.notify()


class Responder:
    """on_next: send a response, or end the call with None. May be called from any thread.

    Waits while the client has much to read of this call, or nobody reads its connection
    and that is full; after the end of the call it does nothing.
    Raises TypeError for a response that is not bytes once it is serialized.
    """

    def __init__(
        self, context: _context.ServicerContext, serialize: Callable[[Any], bytes | None]
    ) -> None:
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
            context._initial_allowed = False
            engine, call, deadline = context._serving.engine, context._call, context._deadline
            result = lib.LR_AGAIN
            while result == lib.LR_AGAIN:
                result = lib.lr_send(engine, call, message, len(message), lib.LR_F_POST, deadline)
            if result < 0 and result != lib.LR_TIMEOUT:
                # Whoever watches is told, and lets go: this thread may hold what
                # the callbacks wait for.
                lib.lr_cancel(engine, call, status.CANCELLED, NULL, 0)

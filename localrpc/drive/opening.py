"""Sends a call off: over the live connection, a new one, or later.

A call that no server has seen is tried again, because nothing can have
happened because of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic_ns

from localrpc.drive import naming
from localrpc.drive.call import ClientCall
from localrpc.drive.connectivity import NotReady
from localrpc.drive.core import NEVER, NULL, borrow, idle_ios, lib
from localrpc.drive.keeper import ChannelClosed, Keeper
from localrpc.drive.session import Session
from localrpc.drive.texts import CHANNEL_CLOSED, debug_text

ATTEMPTS = 8
"""How often a call that no server has seen is tried before it fails."""


def open_call(
    call: ClientCall, head: bytes, message: bytes | None, *, wait_for_ready: bool
) -> None:
    """Begin `call`, dialling if need be; it fails with a status, not an exception.

    Without `message` its requests follow through send(). Raises ChannelClosed.
    """
    opening = _Opening(head, message, wait_for_ready=wait_for_ready)
    if message is not None:
        call.reopen = opening.attempt
    opening.attempt(call)


class _Opening:
    """What it takes to begin a call, once more if need be.

    It does not hold the call, which holds it: the two would be a cycle.
    """

    def __init__(self, head: bytes, message: bytes | None, *, wait_for_ready: bool) -> None:
        self._head = head
        self._message = message
        self._wait_for_ready = wait_for_ready
        self._attempts = 0

    def attempt(self, call: ClientCall) -> None:
        """Raises ChannelClosed."""
        keeper = call.keeper
        while keeper is not None and self._attempts < ATTEMPTS:
            self._attempts += 1
            try:
                session = keeper.ready(
                    call.deadline, wait_for_ready=self._wait_for_ready, wanted=call.running
                )
            except NotReady as reason:
                debug = debug_text(reason.code, reason.details)
                call.end(reason.code, reason.details, debug=debug)
                return
            result, handle = _send_open(keeper, session, call, self._head, self._message)
            if result == 0:
                call.adopt(session, handle)
                return
            if result not in (lib.LR_UNSENT, lib.LR_FORKED):
                break
            keeper.lost(session)
        else:
            result = lib.LR_UNSENT
        if keeper is not None:
            code, details = keeper.failure(result)
            call.end(code, details, debug=debug_text(code, details))


def _send_open(
    keeper: Keeper, session: Session, call: ClientCall, head: bytes, message: bytes | None
) -> tuple[int, int]:
    """The core's result and, if that is 0, the call's handle."""
    number = keeper.number(call.method)
    if number == naming.UNNUMBERED:
        head = naming.in_open(call.method, head)
    else:
        session.declare(number, call.method.encode())
    left = -1
    if call.deadline != NEVER:
        left = max((call.deadline - monotonic_ns()) // 1000, 0)
    io = borrow()
    raw = io.raw
    raw.resumed = 0
    raw.call = 0
    result = lib.LR_AGAIN
    try:
        while result == lib.LR_AGAIN:
            result = lib.lr_open(
                session.engine,
                raw,
                number,
                head or NULL,
                len(head),
                left,
                NULL if message is None else message,
                0 if message is None else len(message),
                0 if message is None else lib.LR_F_MESSAGE | lib.LR_F_END,
                call.deadline,
            )
    except BaseException:
        lib.lr_release(session.engine, raw.call)
        raise
    handle = raw.call
    idle_ios.append(io)
    return result, handle


def open_later(call: ClientCall, start: Callable[[], None]) -> None:
    """Run `start`, which waits for a connection, without keeping the caller."""

    def run() -> None:
        try:
            start()
        except ChannelClosed:
            call.end(*CHANNEL_CLOSED)

    threading.Thread(target=run, name="localrpc-start", daemon=True).start()

"""Opens calls: on the live connection, on a new one, or later on another thread."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns
from typing import TYPE_CHECKING

from localrpc._later import Later
from localrpc.calls.connectivity import NotReady
from localrpc.calls.request import Attempts, with_name
from localrpc.drive.connector import ChannelClosed, Connector
from localrpc.drive.core import NEVER, NULL, borrow, idle_ios, lib
from localrpc.drive.finalizers import start_unwaited
from localrpc.drive.naming import UNNUMBERED
from localrpc.drive.session import Session

if TYPE_CHECKING:
    from localrpc.calls import texts
    from localrpc.drive.call import ClientCall
else:
    texts = Later("localrpc.calls.texts")

_UNSEEN = (lib.LR_UNSENT, lib.LR_FORKED)


class SessionAttempts(Attempts):
    """The attempts of one call, each on another session; for one thread at a time."""

    def __init__(self, connector: Connector, *, wait_for_ready: bool) -> None:
        super().__init__()
        self._connector = connector
        self._wait_for_ready = wait_for_ready

    def session(
        self, deadline: int, wanted: Callable[[], bool] = lambda: True, *, streams: bool = False
    ) -> Session | None:
        """Return a session for one more attempt; None if none is left. Raises as ready()."""
        if not self.begin():
            return None
        return self._connector.ready(
            deadline, wait_for_ready=self._wait_for_ready, wanted=wanted, streams=streams
        )

    def unseen(self, session: Session, result: int = lib.LR_UNSENT) -> bool:
        """Return True if no server saw the attempt on `session`; the next one uses another."""
        if not self.failed(unseen=result in _UNSEEN):
            return False
        if self._connector.lost(session):
            self.grant()  # each session that is left has its turn
        return True


def open_call(
    call: ClientCall, head: bytes, message: bytes | None, *, wait_for_ready: bool
) -> None:
    """Begin `call`, dialling if necessary; a failure is the call's status, not an exception.

    Without `message` the requests are sent later with send(). Raises ChannelClosed.
    """
    connector = call.connector
    if connector is None:
        return  # it has ended meanwhile
    opening = _Opening(connector, head, message, wait_for_ready=wait_for_ready)
    call.reopen = opening.again
    if message is None:
        call.keep_requests()
    opening.attempt(call)


class _Opening:
    """What it takes to begin a call, and to begin it again.

    It does not hold the call, which holds it: that would be a reference cycle.
    """

    def __init__(
        self, connector: Connector, head: bytes, message: bytes | None, *, wait_for_ready: bool
    ) -> None:
        self._connector = connector
        self._head = head
        self._message = message
        self._attempts = SessionAttempts(connector, wait_for_ready=wait_for_ready)

    def attempt(self, call: ClientCall) -> None:
        """Try to open the call until an attempt succeeds. Raises ChannelClosed."""
        connector, attempts = self._connector, self._attempts
        result = lib.LR_UNSENT
        while call.running():
            try:
                session = attempts.session(call.deadline, call.running, streams=call.streams)
            except NotReady as reason:
                call.end(*reason.ending, debug=texts.debug_text(*reason.ending))
                return
            if session is None:
                break
            result, handle = _send_open(connector, session, call, self._head, self._message)
            if result == 0:
                call.adopt(session, handle)
                return
            if not attempts.unseen(session, result):
                break
        code, details = connector.failure(result)
        call.end(code, details, debug=texts.debug_text(code, details))

    def again(self, call: ClientCall, session: Session) -> None:
        """Try again, because the server has not seen the call. Raises ChannelClosed."""
        self._attempts.unseen(session)
        self.attempt(call)


def _send_open(
    connector: Connector, session: Session, call: ClientCall, head: bytes, message: bytes | None
) -> tuple[int, int]:
    """Return the core's result and, if that is 0, the call's handle."""
    number = connector.number(call.method)
    if number == UNNUMBERED:
        head = with_name(call.method, head)
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
    """Run `start`, which waits for a connection, without blocking the caller."""

    def run() -> None:
        try:
            start()
        except ChannelClosed:
            call.end(*texts.CHANNEL_CLOSED)

    start_unwaited(run, "localrpc-start")

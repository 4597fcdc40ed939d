"""Keeps a channel connected: dials on demand, again after a loss, and tells who asks."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from functools import partial
from time import monotonic

import grpc

from localrpc.address import Address
from localrpc.drive.core import NEVER, lib, patience
from localrpc.drive.courier import Courier
from localrpc.drive.finalizers import run_later
from localrpc.drive.greenlets import refuse_greenlets
from localrpc.drive.naming import MethodNumbers
from localrpc.drive.reading import failure
from localrpc.drive.session import Session
from localrpc.drive.texts import DEADLINE_EXCEEDED, LOCALLY_CANCELLED, SOCKET_CLOSED
from localrpc.errors import ConnectError
from localrpc.metadata import SizeLimits
from localrpc.options import Options
from localrpc.transports import Attempt, Connection, Transport, transport_for

Connectivity = grpc.ChannelConnectivity
Subscriber = Callable[[grpc.ChannelConnectivity], None]


_TICK = 0.001
"""Seconds by which a wait may end early."""
_PASSING_PAUSES = (0.0, 0.001, 0.005, 0.02, 0.05)
"""Seconds before each further attempt, while all of them meet a server in its last moment."""
_REDIAL_LIMIT = 1.0
"""Seconds that these further attempts may take together: the next server may still be starting,
or there may be none, and a call without wait_for_ready has to fail then."""


class NotReady(Exception):
    """There is no session, and the call that wanted one ends with this status."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class ChannelClosed(Exception):
    """close() was called; the API floor has grpcio's words for it."""


class Keeper:
    """One per channel. All methods may be called from any thread.

    Channel, methods and calls hold it; its sessions, and the threads that connect for
    subscribers, do not. With the last of those that hold it, its connection ends.
    """

    def __init__(
        self, address: Address, options: Options, transport: Transport | None = None
    ) -> None:
        refuse_greenlets()
        self.address = address
        self.options = options
        self.metadata_limits = SizeLimits(options.metadata_soft, options.max_metadata)
        shared = None
        if transport is None:
            shared = transport_for(address.scheme)
            transport = shared.for_channel(address, options)
        self._transport = transport
        if transport is not shared:
            weakref.finalize(self, run_later, self._transport.close).atexit = False
        self._numbers = MethodNumbers()
        self.number = self._numbers.number
        self._set_up()
        self.closed = False
        _keepers.add(self)

    def _set_up(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._session: Session | None = None
        self._former: list[weakref.ref[Session]] = []
        self._state = Connectivity.IDLE
        self._dialling = False
        self._wake: int | None = None
        """Ends the attempt that is under way, which owns it."""
        self._background = False
        self._failure: ConnectError | None = None
        self._subscribers: list[list[object]] = []
        self._connect_wanted = False
        self.callbacks = Courier("localrpc-callbacks", "Exception in callback")
        self._news = Courier(
            "localrpc-connectivity", "Exception calling channel subscription callback!"
        )

    # Sessions

    def ready(
        self, deadline: int, *, wait_for_ready: bool, wanted: Callable[[], bool] = lambda: True
    ) -> Session:
        """A live session, dialling in this thread if nobody else does.

        Raises NotReady, with DEADLINE_EXCEEDED, or UNAVAILABLE unless
        `wait_for_ready`, or once it is not `wanted` any more, which is asked again after
        nudge(); ChannelClosed.
        """
        until = None if deadline == NEVER else deadline / 1e9
        backoff = self.options.initial_backoff
        while True:
            with self._changed:
                session = self._live()
                if session is not None:
                    return session
                if not wanted():
                    raise NotReady(*LOCALLY_CANCELLED)
                mine = not self._dialling
                if mine:
                    self._begin()
                else:
                    self._wait(until)
                    # A failure of the attempt that this call waited for is its own.
                    wait = wait_for_ready and not self._hopeless()
                    if self._dialling or self._session is not None or wait:
                        continue
                    if self._failure is not None:
                        raise _not_ready(self._failure, until)
                    continue
            session = self._dial(until)
            if session is not None:
                return session
            with self._changed:
                expired = until is not None and monotonic() >= until
                if (not wait_for_ready or self._hopeless() or expired) and not self.closed:
                    raise _not_ready(self._failure, until)
                if not wanted():
                    continue
                pause = monotonic() + backoff
                self._wait(pause if until is None else min(pause, until), expired_is_error=False)
            backoff = min(backoff * 2, self.options.max_backoff)

    def nudge(self) -> None:
        """Have the threads inside ready() ask whether they are wanted."""
        with self._changed:
            self._changed.notify_all()

    def peek(self) -> Session | None:
        """The session if there is a live one; never dials. Raises ChannelClosed."""
        with self._changed:
            return self._live()

    def _live(self) -> Session | None:
        if self.closed:
            raise ChannelClosed
        session = self._session
        if session is None or session.alive():
            return session
        self._forget(session)
        return None

    def _wait(self, until: float | None, *, expired_is_error: bool = True) -> None:
        left = None if until is None else until - monotonic()
        if left is None or left > 0:
            self._changed.wait(patience(left))
        elif expired_is_error:
            raise NotReady(*DEADLINE_EXCEEDED)

    def _hopeless(self) -> bool:
        return self._failure is not None and self._failure.final

    def _begin(self) -> None:
        self._dialling = True
        self._move(Connectivity.CONNECTING)

    def _dial(self, until: float | None) -> Session | None:
        """One attempt; _begin() has made it this thread's."""
        limit = monotonic() + self.options.connect_timeout
        if until is not None:
            limit = min(limit, until)
        session = None
        failed = None
        wake = _wake_descriptor()
        try:
            with self._changed:
                self._wake = wake
                if self.closed:
                    raise ChannelClosed
            connection = self._meet(Attempt(limit, wake))
            session = Session(connection, self.options, partial(_lost, weakref.ref(self)))
        except ConnectError as error:
            failed = _without_frames(error)
        except (OSError, MemoryError) as error:
            failed = ConnectError(str(self.address), str(error))
        finally:
            # Given up for this call's deadline: no reason for others to fail.
            cut = limit == until and monotonic() >= limit - _TICK
            with self._changed:
                self._dialling = False
                self._wake = None
                self._failure = None if cut else failed
                closed = self.closed
                if closed:
                    pass
                elif session is not None:
                    self._session = session
                    self._guard()
                    # Who wanted a connection has had one: its loss starts no other.
                    self._connect_wanted = False
                    self._move(Connectivity.READY)
                else:
                    self._move(Connectivity.TRANSIENT_FAILURE)
                self._changed.notify_all()
            if wake is not None:
                os.close(wake)
        if closed:
            if session is not None:
                session.close()
            raise ChannelClosed
        return session

    def _meet(self, attempt: Attempt) -> Connection:
        """Dial, and again at once if the server was on its way out: another may be there.

        Nobody has seen anything of a call by then. Raises ConnectError.
        """
        try:
            return self._transport.dial(self.address, self.options, attempt)
        except ConnectError as error:
            if not error.passing:
                raise
            first = _without_frames(error)
        attempt = attempt.within(_REDIAL_LIMIT)
        for pause in _PASSING_PAUSES:
            with self._changed:
                if self._changed.wait_for(lambda: self.closed, pause):
                    break
            try:
                return self._transport.dial(self.address, self.options, attempt)
            except ConnectError as error:
                if attempt.left() <= _TICK:
                    break
                if not error.passing:
                    raise
        raise first

    def lost(self, session: Session) -> None:
        """`session` will not carry another call; those in flight go on if they can."""
        with self._changed:
            self._forget(session)

    def _forget(self, session: Session) -> None:
        if session is not self._session:
            return
        self._session = None
        self._former = [ref for ref in self._former if ref() is not None]
        self._former.append(weakref.ref(session))
        self._move(Connectivity.IDLE)
        self._changed.notify_all()

    def close(self) -> None:
        """End the sessions. Idempotent."""
        with self._changed:
            if self.closed:
                return
            self.closed = True
            sessions = [ref() for ref in self._former]
            sessions.append(self._session)
            self._session = None
            if self._wake is not None:
                os.eventfd_write(self._wake, 1)
            self._subscribers.clear()
            self._move(Connectivity.SHUTDOWN)
            self._changed.notify_all()
        self._transport.close()
        for session in sessions:
            if session is not None:
                session.close()

    def failure(
        self, result: int, size: int = 0, session: Session | None = None
    ) -> tuple[grpc.StatusCode, str]:
        """How a call ends for a negative `result` of the core's, met on `session`."""
        code, details = failure(result, size, self.options.max_receive, closed=self.closed)
        if session is not None and (
            result == lib.LR_PROTOCOL or (details == SOCKET_CLOSED[1] and session.faulty())
        ):
            details = f"{self.address}: {session.reason()}"
        return code, details

    # Connectivity

    def subscribe(self, callback: Subscriber, *, try_to_connect: bool) -> None:
        """`callback` hears the present state first, then every change, on another thread."""
        with self._changed:
            if self.closed:
                return
            entry: list[object] = [callback, self._state]
            self._subscribers.append(entry)
            self._news.post(partial(callback, self._state))
            self._connect_wanted |= try_to_connect
            session = self._session
            start = not self._background and (self._connect_wanted or session is not None)
            self._background |= start
            self._guard()
            self._changed.notify_all()
        if start:
            threading.Thread(
                target=_connect, args=(weakref.ref(self),), name="localrpc-connect", daemon=True
            ).start()

    def unsubscribe(self, callback: Subscriber) -> None:
        with self._changed:
            for index, (known, _) in enumerate(self._subscribers):
                if known == callback:
                    del self._subscribers[index]
                    break
            self._guard()
            self._changed.notify_all()

    def forsake(self) -> None:
        """The channel is garbage: nobody subscribes any more. For a finalizer: takes no lock."""
        if self._subscribers:
            run_later(self._unsubscribe_all)

    def _unsubscribe_all(self) -> None:
        with self._changed:
            self._subscribers.clear()
            self._guard()
            self._changed.notify_all()

    def _guard(self) -> None:
        """Have the session watched for its end, or not, as the subscribers are; lock held."""
        if self._session is not None:
            self._session.guard(wanted=bool(self._subscribers))

    def _move(self, state: grpc.ChannelConnectivity) -> None:
        self._state = state
        for entry in self._subscribers:
            if entry[1] is not state:
                entry[1] = state
                callback = entry[0]
                assert callable(callback)
                self._news.post(partial(callback, state))

    def _connect_once(self) -> bool:
        """Whether to try once more, after a pause."""
        with self._changed:
            idle = self._state is Connectivity.IDLE and not self._connect_wanted
            if self.closed or not self._subscribers or self._session is not None or idle:
                self._background = False
                return False
            self._connect_wanted = False
            if self._dialling:
                return True
            self._begin()
        try:
            self._dial(None)
        except ChannelClosed:
            return False
        with self._changed:
            self._background = self._session is None and not self._hopeless()
            return self._background

    def after_fork(self) -> None:
        """The child has none of the threads, and must not touch the parent's link."""
        subscribers = [entry[0] for entry in self._subscribers]
        if self._wake is not None:
            os.close(self._wake)
        sessions = [self._session, *(ref() for ref in self._former)]
        for session in sessions:
            if session is not None:
                session.disown()
        if sessions == [None]:
            self._transport.forget_taken()
        self._set_up()
        for callback in subscribers:
            self._subscribers.append([callback, Connectivity.IDLE])


def _connect(ref: weakref.ref[Keeper]) -> None:
    """Connect for the subscribers' sake, and again while that fails.

    Holds the keeper only while it is at work: subscribers may hold their channel.
    """
    backoff = 0.0
    while (keeper := ref()) is not None and keeper._connect_once():
        options, changed = keeper.options, keeper._changed
        del keeper
        backoff = min(backoff * 2 or options.initial_backoff, options.max_backoff)
        with changed:
            changed.wait(backoff)


def _without_frames(error: ConnectError) -> ConnectError:
    """What led to it holds frames, and those the keeper and the error itself."""
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


def _wake_descriptor() -> int | None:
    try:
        return os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    except OSError:
        return None  # then close() does not end the attempt before its time


def _not_ready(failure: ConnectError | None, until: float | None) -> NotReady:
    """Why there is no session: whatever has failed, a deadline that has passed came first."""
    if failure is None or (until is not None and monotonic() >= until):
        return NotReady(*DEADLINE_EXCEEDED)
    return NotReady(grpc.StatusCode[failure.code], str(failure))


def _lost(keeper: weakref.ref[Keeper], session: Session) -> None:
    """For a session, which its keeper holds."""
    found = keeper()
    if found is not None:
        found.lost(session)


_keepers: weakref.WeakSet[Keeper] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for keeper in list(_keepers):
        keeper.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)

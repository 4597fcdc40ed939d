"""Keeps a channel connected: dials on demand and after a loss, and notifies subscribers."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Callable
from functools import partial
from time import monotonic, monotonic_ns
from typing import TYPE_CHECKING

from localrpc import _locks
from localrpc._later import Later
from localrpc.address import Address
from localrpc.calls.connectivity import Backoff, Connectivity, NotReady, Subscriber
from localrpc.drive.callback_queue import CallbackQueue
from localrpc.drive.core import NEVER, lib, patience
from localrpc.drive.dialling import TICK, meet, wake_descriptor, without_frames
from localrpc.drive.finalizers import run_later, start_unwaited
from localrpc.drive.greenlets import refuse_greenlets
from localrpc.drive.naming import MethodNumbers
from localrpc.drive.reading import failure
from localrpc.drive.session import Session
from localrpc.errors import ConnectError
from localrpc.metadata import SizeLimits
from localrpc.options import Options
from localrpc.transports import Attempt, Dialer, transport_for

if TYPE_CHECKING:
    import grpc

    from localrpc.calls import texts
    from localrpc.drive import links as linking
else:
    texts = Later("localrpc.calls.texts")
    linking = Later("localrpc.drive.links")


class ChannelClosed(Exception):
    """close() was called; the API translates it into grpcio's error."""


class Connector:
    """Connects one channel. Thread-safe.

    Channel, methods and calls hold it; its sessions, and the threads that connect on behalf of
    subscribers, do not. When the last of those that hold it is gone, its connection ends.
    """

    def __init__(self, address: Address, options: Options, dialer: Dialer | None = None) -> None:
        refuse_greenlets()
        self.address = address
        self.options = options
        self.metadata_limits = SizeLimits(options.metadata_soft, options.max_metadata)
        self._dialer = dialer or transport_for(address.scheme).dialer(address, options)
        if self._dialer.single:
            weakref.finalize(self, run_later, self._dialer.close).atexit = False
        self._numbers = MethodNumbers()
        self.number = self._numbers.number
        self.call_lock = _locks.RLock()
        """The lock of all its calls; reentrant, because a user's finalizer may call in anywhere."""
        self._set_up()
        self.closed = False
        _connectors.add(self)

    def _set_up(self) -> None:
        self._changed = _locks.Condition()
        self._session: Session | None = None
        """Any one, if there are several."""
        self._links: linking.Links | None = None
        """All sessions, where a group of workers serves the target."""
        self._former: list[weakref.ref[Session]] = []
        self._state = Connectivity()
        self._wake: int | None = None
        """The eventfd that interrupts the current attempt, which owns it."""
        self.callbacks = CallbackQueue("localrpc-callbacks", "Exception in callback")
        self._news = CallbackQueue(
            "localrpc-connectivity", "Exception calling channel subscription callback!"
        )

    # Sessions

    def ready(
        self,
        deadline: int,
        *,
        wait_for_ready: bool,
        wanted: Callable[[], bool] = lambda: True,
        streams: bool = False,
    ) -> Session:
        """Return a live session; dial in this thread unless another thread is dialling.

        `streams`: it is for a call with a stream of answers.

        Raises NotReady with DEADLINE_EXCEEDED; with UNAVAILABLE, unless `wait_for_ready`; or
        once `wanted()` is false, which is checked again after nudge(). Raises ChannelClosed.
        """
        session = self.session_now(streams=streams)
        if session is not None:
            return session
        until = None if deadline == NEVER else deadline / 1e9
        backoff = Backoff(self.options.initial_backoff, self.options.max_backoff)
        state = self._state
        while True:
            with self._changed:
                session = self._live()
                if session is not None:
                    return session
                if not wanted():
                    raise NotReady(wanted=False)
                if state.dialling:
                    self._wait(until)
                    if not state.dialling and self._session is None and state.failure is not None:
                        # The attempt that this call waited for failed, so this call fails with it.
                        state.check(monotonic(), until, wait_for_ready=wait_for_ready)
                    continue
                self._news.post(*state.begin())
            session = self._dial(until)
            if session is not None:
                return session
            with self._changed:
                if not self.closed:
                    state.check(monotonic(), until, wait_for_ready=wait_for_ready)
                if not wanted():
                    continue
                pause = monotonic() + backoff.next()
                self._wait(pause if until is None else min(pause, until), expired_is_error=False)

    @property
    def state(self) -> str:
        """The channel's state in a word, for people; as it was when it was last looked at."""
        return str(self._state.state.name).lower()

    def nudge(self) -> None:
        """Make the threads inside ready() check again whether a session is still wanted."""
        with self._changed:
            self._changed.notify_all()

    def session_now(self, *, streams: bool = False) -> Session | None:
        """Return the session if it is alive, the best one if there are several.

        Without a lock: a moment later it may not be alive.
        """
        session = self._session
        if session is None or self.closed:
            return None
        links = self._links
        while links is not None:
            session = links.choose(streams=streams)
            if session is None or session.alive():
                return session
            self.lost(session)
        return session if session.alive() else None

    def peek(self) -> Session | None:
        """Return the session if there is a live one; never dial. Raises ChannelClosed."""
        with self._changed:
            return self._live()

    def _live(self) -> Session | None:
        if self.closed:
            raise ChannelClosed
        while (session := self._session) is not None and not session.alive():
            self._forget(session)
        return session

    def _wait(self, until: float | None, *, expired_is_error: bool = True) -> None:
        left = None if until is None else until - monotonic()
        if left is None or left > 0:
            self._changed.wait(patience(left))
        elif expired_is_error:
            raise NotReady

    def _dial(self, until: float | None) -> Session | None:
        """Make one attempt, for which state.begin() has chosen this thread."""
        limit = monotonic() + self.options.connect_timeout
        if until is not None:
            limit = min(limit, until)
        session = links = None
        failed = None
        wake = wake_descriptor()
        try:
            with self._changed:
                self._wake = wake
                if self.closed:
                    raise ChannelClosed
            connection = meet(self._dialer, Attempt(limit, wake), self._pause)
            lost = partial(_lost, weakref.ref(self))
            session = Session(connection, self.address, self.options, lost)
            hello = connection.hello
            if hello.group and linking.spreads(self.address, self.options, hello):
                links = linking.Links(self.address, self.options, session, lost)
        except ConnectError as error:
            failed = without_frames(error)
        except (OSError, MemoryError) as error:
            failed = ConnectError(str(self.address), str(error))
        finally:
            # If one call's deadline cut the attempt short, other calls do not fail for it.
            cut = limit == until and monotonic() >= limit - TICK
            with self._changed:
                self._wake = None
                if self.closed:
                    self._state.dialling = False
                elif session is not None:
                    self._session = session
                    self._links = links
                    self._guard()
                    self._news.post(*self._state.connected())
                else:
                    self._news.post(*self._state.failed(None if cut else failed))
                self._changed.notify_all()
                closed = self.closed  # last, because a user's finalizer may have closed it here
            if wake is not None:
                os.close(wake)
        if closed:
            if session is not None:
                session.close()
            raise ChannelClosed
        return session

    def _pause(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.closed, seconds)

    def lost(self, session: Session) -> bool:
        """Stop using `session` for new calls; those in flight go on if they can.

        Return True if it was one of several, and another is left.
        """
        with self._changed:
            return self._forget(session) and self._session is not None

    def _forget(self, session: Session) -> bool:
        """Return False if it was forgotten before."""
        links = self._links
        if not (links.remove(session) if links else session is self._session):
            return False
        self._former = [ref for ref in self._former if ref() is not None]
        self._former.append(weakref.ref(session))
        if session is not self._session:
            return True
        self._session = next(iter(links.sessions), None) if links else None
        if self._session is not None:
            self._guard()
            return True
        if links is not None:
            self._former += map(weakref.ref, links.close())  # one that has come meanwhile
            self._links = None
        self._news.post(*self._state.lost())
        self._changed.notify_all()
        return True

    def close(self) -> None:
        """End the sessions. Idempotent."""
        with self._changed:
            if self.closed:
                return
            self.closed = True
            sessions = [ref() for ref in self._former]
            sessions.append(self._session)
            if self._links is not None:
                sessions += self._links.close()
            self._session = None
            if self._wake is not None:
                os.eventfd_write(self._wake, 1)
            removed = self._state.closed()
            self._changed.notify_all()
        del removed  # without the lock, because finalizers of subscribers may call in
        self._dialer.close()
        for session in sessions:
            if session is not None:
                session.close()

    def failure(
        self, result: int, size: int = 0, session: Session | None = None, deadline: int = NEVER
    ) -> tuple[grpc.StatusCode, str]:
        """Return how a call ends for a negative `result` of the core, which `session` gave.

        May wait a moment, until `deadline` at most, for a child's exit status. Takes no lock that
        a call has.
        """
        code, details = failure(result, size, self.options.max_receive, closed=self.closed)
        if session is not None and (
            result == lib.LR_PROTOCOL or (details == texts.SOCKET_CLOSED[1] and session.faulty())
        ):
            details = f"{self.address}: {session.reason()}"
        elif session is not None and details == texts.SOCKET_CLOSED[1] and self._dialer.explains:
            left = math.inf if deadline == NEVER else (deadline - monotonic_ns()) / 1e9
            details = self._dialer.why_lost(left) or details
        return code, details

    # Connectivity

    def subscribe(self, callback: Subscriber, *, try_to_connect: bool) -> None:
        """Call `callback` with the present state, then with each change, on another thread."""
        with self._changed:
            if self.closed:
                return
            self._news.post(*self._state.subscribe(callback, try_to_connect=try_to_connect))
            start = self._state.starts_connecting()
            self._guard()
            self._changed.notify_all()
        if start:
            start_unwaited(partial(_connect, weakref.ref(self)), "localrpc-connect")

    def unsubscribe(self, callback: Subscriber) -> None:
        with self._changed:
            removed = self._state.unsubscribe(callback)
            self._guard()
            self._changed.notify_all()
        del removed

    def forsake(self) -> None:
        """Drop the subscribers of a channel that is garbage. For a finalizer: takes no lock."""
        if self._state.subscribed:
            run_later(self._unsubscribe_all)

    def _unsubscribe_all(self) -> None:
        with self._changed:
            removed = self._state.unsubscribe_all()
            self._guard()
            self._changed.notify_all()
        del removed

    def _guard(self) -> None:
        """Watch the session for its end if there are subscribers. Called with the lock held."""
        if self._session is not None:
            self._session.guard(wanted=self._state.subscribed)

    def _connect_once(self) -> bool:
        """Make one attempt. Return True if another one has to follow after a pause."""
        with self._changed:
            if not self._state.goes_on_connecting():
                return False
            if self._state.dialling:
                return True
            self._news.post(*self._state.begin())
        try:
            self._dial(None)
        except ChannelClosed:
            return False
        with self._changed:
            return not self._state.has_connected()

    def after_fork(self) -> None:
        """Start afresh in a forked child, which has no threads, without using the parent's link."""
        subscribers = self._state.subscribers
        if self._wake is not None:
            os.close(self._wake)
        sessions = [self._session, *(ref() for ref in self._former)]
        if self._links is not None:
            sessions += self._links.sessions
            self._links.forsake()
        for session in sessions:
            if session is not None:
                session.disown()
        if sessions == [None]:
            self._dialer.forget_taken()
        self._set_up()
        for callback in subscribers:
            self._state.subscribe(callback, try_to_connect=False)


def _connect(ref: weakref.ref[Connector]) -> None:
    """Connect on behalf of subscribers, repeating attempts that fail.

    Holds the connector only during an attempt, because subscribers may hold their channel.
    """
    backoff = None
    while (connector := ref()) is not None and connector._connect_once():
        options, changed = connector.options, connector._changed
        del connector
        backoff = backoff or Backoff(options.initial_backoff, options.max_backoff)
        with changed:
            changed.wait(backoff.next())


def _lost(connector: weakref.ref[Connector], session: Session) -> None:
    """Forward the loss of a session without holding the connector, which holds the session."""
    found = connector()
    if found is not None:
        found.lost(session)


_connectors: weakref.WeakSet[Connector] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for connector in list(_connectors):
        connector.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)

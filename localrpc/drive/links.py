"""The connections of one channel to the workers of a group.

A channel connects to the group's target, and to a further worker, at the target of its own, only
once all that it has are busy. So a client that makes one call after another has one connection.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from functools import partial
from time import monotonic, monotonic_ns

from localrpc import _locks
from localrpc.address import Address
from localrpc.calls.choosing import MOST, Chooser, Load, Search
from localrpc.drive.dialling import wake_descriptor
from localrpc.drive.finalizers import start_unwaited
from localrpc.drive.session import Session
from localrpc.errors import ConnectError
from localrpc.options import Options
from localrpc.transports import Attempt, Dialer, transport_for
from localrpc.wire.codec import Hello

DIAL = 1.0
"""Seconds that one attempt may take: a worker that is starting is found the next time."""
PAUSE = 0.25
LONG_PAUSE = 1.0
"""Seconds until workers are looked for again: after a search that found one, and another."""


def spreads(address: Address, options: Options, hello: Hello) -> bool:
    """Return True if a channel may connect to other workers of the group of this server."""
    return (
        bool(hello.group)
        and options.spread == "calls"
        and transport_for(address.scheme).worker_address(address, 1) is not None
    )


def dialer_of(address: Address, options: Options, number: int) -> Dialer:
    """Return a dialer to worker `number` of the group at `address`, where a channel spreads."""
    transport = transport_for(address.scheme)
    theirs = transport.worker_address(address, number)
    assert theirs is not None
    return transport.dialer(theirs, options)


class Links:
    """Thread-safe. Its threads hold it only during an attempt to connect."""

    def __init__(
        self, address: Address, options: Options, first: Session, lost: Callable[[Session], None]
    ) -> None:
        """`lost` is that of the sessions, for those that are made here."""
        self._address = address
        self._options = options
        self._lost = lost
        self._group = first.connection.hello.group
        self._lock = _locks.RLock()
        """Reentrant, because a user's finalizer may call in at any allocation."""
        self._chooser = Chooser()
        self._closed = False
        self._looking = False
        self._not_before = 0.0
        self._wake: int | None = None
        """The eventfd that ends the look in progress, which owns it."""
        self.sessions: tuple[Session, ...] = ()
        """Replaced, never changed."""
        self.add(first)

    def choose(self, *, streams: bool = False) -> Session | None:
        """Return where a call, or one that `streams` answers, is best made; None without sessions.

        Takes no lock unless all are busy.
        """
        sessions = self.sessions
        if not sessions:
            return None
        loads = [session.load for session in sessions]
        if streams:
            position, busy = self._chooser.for_stream(loads)
        else:
            position, busy = self._chooser.for_call(loads, monotonic_ns())
        if busy and not self._looking and monotonic() >= self._not_before:
            self._look()
        return sessions[position]

    def add(self, session: Session) -> bool:
        """Return False if it is too late: then the caller closes it."""
        session.load = Load(shown=session.connection.load)
        with self._lock:
            while not self._closed:
                before = self.sessions
                after = (*before, session)
                if self.sessions is before and not self._closed:  # no finalizer has changed it
                    self.sessions = after
                    return True
            return False

    def remove(self, session: Session) -> bool:
        """Use it for no further call. Return False if it was not there."""
        with self._lock:
            while session in self.sessions:
                before = self.sessions
                after = tuple([each for each in before if each is not session])
                if self.sessions is before:  # no finalizer has changed it
                    self.sessions = after
                    self._not_before = 0.0  # another worker may have its place
                    return True
            return False

    def close(self) -> tuple[Session, ...]:
        """Look for no more workers; return the sessions, which the caller closes."""
        with self._lock:
            self._closed = True
            if self._wake is not None:
                os.eventfd_write(self._wake, 1)
            sessions, self.sessions = self.sessions, ()
            return sessions

    def forsake(self) -> None:
        """Close, in a forked child, what a thread of the parent uses. The sessions are left."""
        wake, self._wake = self._wake, None
        if wake is not None:
            os.close(wake)

    # Further workers

    def _look(self) -> None:
        with self._lock:
            if self._looking or self._closed or len(self.sessions) >= MOST:
                return
            self._looking = True
        started = False
        try:
            start_unwaited(partial(_look, weakref.ref(self)), "localrpc-workers")
            started = True
        except RuntimeError:  # the interpreter is exiting, or there are too many threads
            pass
        finally:
            if not started:
                self._looked(found=False)

    def _looked(self, *, found: bool) -> None:
        self._not_before = monotonic() + (PAUSE if found else LONG_PAUSE)
        self._looking = False

    def _numbers(self) -> set[int]:
        return {session.connection.hello.worker for session in self.sessions}

    def _drop_dead(self) -> None:
        """Notice the end of workers that get no call because of the load that they showed last."""
        for session in self.sessions:
            if not session.look():
                self._lost(session)

    def _try(self, search: Search) -> bool:
        """Connect to one more worker, if there is one. Return False once the search is over."""
        goes_on = False
        try:
            number = search.next(self._numbers())
            if number is not None and not self._closed:
                search.tried(self._numbers(), found=self._dial(number))
                goes_on = True
        finally:
            if not goes_on:
                self._looked(found=search.has_found)
        return goes_on

    def _dial(self, number: int) -> bool:
        """Connect to worker `number`. Return False if there is none, or another group's."""
        dialer = dialer_of(self._address, self._options, number)
        wake = wake_descriptor()
        with self._lock:
            self._wake = wake
            if self._closed and wake is not None:
                os.eventfd_write(wake, 1)
        try:
            attempt = Attempt(monotonic() + min(DIAL, self._options.connect_timeout), wake)
            connection = dialer.dial(attempt)
            hello = connection.hello
            if (hello.group, hello.worker) != (self._group, number):
                connection.close()
                return False
            session = Session(connection, self._address, self._options, self._lost)
        except (ConnectError, OSError, MemoryError):
            return False
        finally:
            with self._lock:
                self._wake = None
            if wake is not None:
                os.close(wake)
        if not self.add(session):
            session.close()
            return False
        return True


def _look(ref: weakref.ref[Links]) -> None:
    """Connect to each worker of the group that has no connection yet."""
    search = Search()
    if (links := ref()) is not None:
        links._drop_dead()
        del links
    while (links := ref()) is not None and links._try(search):
        del links

"""The connections of one channel of an event loop to the workers of a group. See links.py."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Sized
from time import monotonic, monotonic_ns

from localrpc.address import Address
from localrpc.calls.choosing import MOST, Chooser, Load, Search
from localrpc.drive.links import DIAL, LONG_PAUSE, PAUSE, dialer_of
from localrpc.drive.loop_dialling import Wake, dial_on_thread
from localrpc.drive.loop_session import LoopSession
from localrpc.errors import ConnectError
from localrpc.options import Options
from localrpc.transports import Attempt, Connection


class LoopLinks:
    """For the loop's thread."""

    def __init__(
        self,
        address: Address,
        options: Options,
        loop: asyncio.AbstractEventLoop,
        first: LoopSession,
        make: Callable[[Connection], LoopSession],
    ) -> None:
        """`make` is a method of the connector, which holds this; it raises MemoryError."""
        self._address = address
        self._options = options
        self._loop = loop
        self._make = weakref.WeakMethod(make)
        self._group = first.connection.hello.group
        self._chooser = Chooser()
        self._search: Search | None = None
        self._not_before = 0.0
        self._closed = False
        self.wake: Wake | None = None
        """That of the attempt in progress."""
        self.sessions: tuple[LoopSession, ...] = ()
        self._add(first)

    def choose(self, *, streams: bool = False) -> LoopSession | None:
        """Return where a call is best made, or one that `streams` answers; None if nowhere."""
        sessions = self.sessions
        if not sessions:
            return None
        loads = [session.load for session in sessions]
        if streams:
            position, busy = self._chooser.for_stream(loads)
        else:
            position, busy = self._chooser.for_call(loads, monotonic_ns())
        if busy and self._search is None and monotonic() >= self._not_before:
            self._look()
        return sessions[position]

    def remove(self, session: LoopSession) -> bool:
        """Use it for no further call. Return False if it was not there."""
        if session not in self.sessions:
            return False
        self.sessions = tuple(each for each in self.sessions if each is not session)
        self._not_before = 0.0  # another worker may have its place
        return True

    def close(self) -> None:
        """Look for no more workers. The caller closes the sessions."""
        self._closed = True
        if self.wake is not None:
            self.wake.give_up()

    def _add(self, session: LoopSession) -> None:
        session.load = Load(
            _Calls(session.calls, session.streams), session.streams, session.connection.load
        )
        self.sessions = (*self.sessions, session)

    # Further workers

    def _look(self) -> None:
        if len(self.sessions) < MOST:
            self._search = Search()
            self._go_on()

    def _go_on(self) -> None:
        goes_on = False
        try:
            goes_on = self._try()
        finally:
            if not goes_on:
                self._search = None

    def _numbers(self) -> set[int]:
        return {session.connection.hello.worker for session in self.sessions}

    def _try(self) -> bool:
        """Begin to connect to one more worker. Return False once the search is over."""
        search = self._search
        assert search is not None
        number = search.next(self._numbers())
        if number is None or self._closed:
            self._not_before = monotonic() + (PAUSE if search.has_found else LONG_PAUSE)
            return False
        self._number = number
        self.wake = wake = Wake()
        limit = monotonic() + min(DIAL, self._options.connect_timeout)
        dialer = dialer_of(self._address, self._options, number)
        dial_on_thread(
            dialer, Attempt(limit, wake.fd), wake, self._loop, self._dialled, str(self._address)
        )
        return True

    def _dialled(self, connection: Connection | None, failed: ConnectError | None) -> None:
        self.wake = None
        search, make = self._search, self._make()
        assert search is not None
        session = None
        if connection is not None:
            hello = connection.hello
            known = (hello.group, hello.worker) == (self._group, self._number)
            if known and not self._closed and make is not None:
                try:
                    session = make(connection)
                except MemoryError:
                    pass
            else:
                connection.close()
        if session is not None:
            self._add(session)
        search.tried(self._numbers(), found=session is not None)
        self._go_on()


class _Calls:
    """The calls of a session that have no stream of answers, in number."""

    def __init__(self, calls: Sized, streams: Sized) -> None:
        self._calls = calls
        self._streams = streams

    def __len__(self) -> int:
        return len(self._calls) - len(self._streams)

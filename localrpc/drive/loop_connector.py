"""Connects a channel of an event loop: dials on demand, on a thread, without blocking the loop."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
from collections.abc import Callable
from functools import partial
from time import monotonic, monotonic_ns
from typing import Any

import grpc

from localrpc.address import Address
from localrpc.calls.connectivity import Backoff, Connectivity, NotReady, State
from localrpc.calls.texts import SOCKET_CLOSED, debug_text
from localrpc.drive.core import NEVER, lib
from localrpc.drive.dialling import TICK, Dialling
from localrpc.drive.links import spreads
from localrpc.drive.loop_dialling import Wake, dial_on_thread
from localrpc.drive.loop_links import LoopLinks
from localrpc.drive.loop_session import Caller, LoopSession
from localrpc.drive.naming import MethodNumbers
from localrpc.drive.reading import failure
from localrpc.errors import ConnectError
from localrpc.metadata import SizeLimits
from localrpc.options import Options
from localrpc.transports import Attempt, Connection, Dialer, transport_for


class LoopConnector:
    """Connects one channel, on one loop. For that loop's thread."""

    def __init__(
        self,
        address: Address,
        options: Options,
        loop: asyncio.AbstractEventLoop,
        dialling: Dialling | None = None,
    ) -> None:
        self.address = address
        self.options = options
        self.loop = loop
        self.metadata_limits = SizeLimits(options.metadata_soft, options.max_metadata)
        if dialling is None:
            dialling = Dialling(transport_for(address.scheme).dialer(address, options))
        self._dialling = dialling
        self._dialer = dialling.dialer
        self.number = MethodNumbers().number
        self.session: LoopSession | None = None
        """The one for new calls, any one if there are several. It may have ended: see peek()."""
        self.links: LoopLinks | None = None
        """All sessions, where a group of workers serves the target."""
        self._former: list[LoopSession] = []
        """Sessions that take no new calls, while they have some."""
        self._state = Connectivity()
        self._waiters: list[asyncio.Future[None]] = []
        self._wake: Wake | None = None
        self._pid = os.getpid()
        self.closed = False
        self.calls: set[Caller] = set()
        """Calls that have not begun yet."""
        self._loss: asyncio.Future[str] | None = None
        """Done when it is known why the connection has ended, as far as it will be."""

    # Sessions

    def peek(self) -> LoopSession | None:
        """Return the session if there is a live one; never dial."""
        while (session := self.session) is not None and not session.alive():
            self._forget(session)
        return session

    def best(self, *, streams: bool = False) -> LoopSession | None:
        """Return the session for a call, or for one that `streams` answers, which may have ended;
        None if there is none."""
        return self.session if self.links is None else self.links.choose(streams=streams)

    async def ready_for(
        self, call: Caller, *, wait_for_ready: bool, streams: bool = False
    ) -> LoopSession | None:
        """Return a session; None if the call has ended, or ends here because there is none."""
        until = None if call.deadline == NEVER else call.deadline / 1e9
        backoff = Backoff(self.options.initial_backoff, self.options.max_backoff)
        state = self._state
        self.calls.add(call)
        try:
            while call.running():
                if self.closed:
                    call.close()
                    return None
                if self.peek() is not None:
                    return self.best(streams=streams)
                if not state.dialling:
                    self._dial()
                await self._change(call, until)
                if not state.dialling and self.peek() is None and state.failure is not None:
                    state.check(monotonic(), until, wait_for_ready=wait_for_ready)
                    pause = monotonic() + backoff.next()
                    await self._change(call, pause if until is None else min(pause, until))
                elif until is not None and monotonic() >= until - TICK:
                    raise NotReady
        except NotReady as reason:
            call.end(*reason.ending, debug=debug_text(*reason.ending))
        finally:
            self.calls.discard(call)
        return None

    async def _change(self, call: Caller | None, until: float | None) -> None:
        """Wait for a change of the connectivity, or the call's end, or the time `until`."""
        future = self.loop.create_future()
        self._waiters.append(future)
        timer = None
        if until is not None:
            timer = self.loop.call_later(max(until - monotonic(), 0), _resolve, future)
        if call is not None:
            call.waiters.append(future)
        try:
            await future
        finally:
            if timer is not None:
                timer.cancel()
            if future in self._waiters:
                self._waiters.remove(future)
            if call is not None:
                call.forget(future)

    def _changed(self) -> None:
        waiters, self._waiters = self._waiters, []
        for future in waiters:
            _resolve(future)

    def _dial(self) -> None:
        """Begin one attempt, on a thread of its own."""
        self._state.begin()
        self._changed()
        self._wake = wake = Wake()
        attempt = Attempt(monotonic() + self.options.connect_timeout, wake.fd)
        dial_on_thread(self._dialer, attempt, wake, self.loop, self._dialled, str(self.address))

    def _dialled(self, connection: Connection | None, failed: ConnectError | None) -> None:
        self._wake = None
        if self.closed:
            self._state.dialling = False
            if connection is not None:
                connection.close()
            return
        if connection is not None:
            try:
                self.session = session = self._make(connection)
                if spreads(self.address, self.options, connection.hello):
                    self.links = LoopLinks(
                        self.address, self.options, self.loop, session, self._make
                    )
            except MemoryError as error:
                failed = ConnectError(str(self.address), str(error))
        if self.session is not None and failed is None:
            self._state.connected()
        else:
            self._state.failed(failed)
        self._changed()

    def _make(self, connection: Connection) -> LoopSession:
        return LoopSession(connection, self.address, self.options, self.loop, self._forget)

    def lost(self, session: LoopSession) -> None:
        """Stop using `session` for new calls; those in flight go on if they can."""
        self._forget(session)

    def _forget(self, session: LoopSession) -> None:
        self._former = [each for each in self._former if each.calls and each is not session]
        if session.calls:
            self._former.append(session)
        links = self.links
        if links is not None:
            links.remove(session)
        if session is not self.session:
            return
        self.session = next(iter(links.sessions), None) if links else None
        if self.session is not None:
            return
        if links is not None:
            links.close()
            self.links = None
        self._state.lost()
        self._changed()

    def _sessions(self) -> list[LoopSession]:
        """Return all, with those that take no new calls."""
        sessions = [*self._former]
        if self.links is not None:
            sessions += self.links.sessions
        elif self.session is not None:
            sessions.append(self.session)
        return sessions

    def live_calls(self) -> list[Caller]:
        """Return the calls that have not ended."""
        live = [call for session in self._sessions() for call in session.calls.values()]
        return [*self.calls, *live]

    def close(self) -> None:
        """End everything that goes on. Idempotent."""
        if self.closed:
            return
        self.closed = True
        if self._wake is not None:
            self._wake.give_up()
        sessions = self._sessions()
        if self.links is not None:
            self.links.close()
        self.session = self.links = None
        self._former = []
        for call in list(self.calls):
            call.close()
        for session in sessions:
            for call in list(session.calls.values()):
                call.close()
            session.close()
        self._state.closed()
        self._dialer.close()
        self._changed()

    @property
    def inherited(self) -> bool:
        """True in a forked child: the loop and the connections are the parent's."""
        return os.getpid() != self._pid

    def forsake(self) -> None:
        """Drop the connections of a loop that is closed, or of a parent process."""
        sessions, links = self._sessions(), self.links
        for wake in (self._wake, None if links is None else links.wake):
            if wake is not None and self.inherited:
                wake.close_inherited()
        if links is not None:
            links.close()
        if self.inherited:
            self._wake = None
        self.session, self.links, self._former = None, None, []
        for session in sessions:
            session.calls.clear()
            if self.inherited:
                session.disown()
            else:
                session.close()
        if self.inherited and not sessions:
            self._dialer.forget_taken()

    def failure(
        self, result: int, size: int = 0, session: LoopSession | None = None
    ) -> tuple[grpc.StatusCode, str]:
        """Return how a call ends for a negative `result` of the core, which `session` gave."""
        code, details = failure(result, size, self.options.max_receive, closed=self.closed)
        if session is not None and (
            result == lib.LR_PROTOCOL or (details == SOCKET_CLOSED[1] and session.faulty())
        ):
            details = f"{self.address}: {session.reason()}"
        return code, details

    def explain(
        self,
        details: str,
        session: LoopSession | None,
        deadline: int,
        then: Callable[[str], object],
    ) -> bool:
        """Return True if the exit status of a child may explain the end of a connection.

        Then `then` is called in a moment, by `deadline`, with better details or the same; it may
        be called twice. A thread waits meanwhile.
        """
        if session is None or details != SOCKET_CLOSED[1] or not self._dialer.explains:
            return False
        if self._loss is None:
            self._loss = self.loop.create_future()
            thread = threading.Thread(
                target=_explain_on_thread,
                args=(self._dialer, self.loop, partial(_settle, self._loss)),
                name="localrpc-explain",
                daemon=True,
            )
            try:
                thread.start()
            except RuntimeError:  # the interpreter is exiting
                self._loss.set_result("")
        self._loss.add_done_callback(lambda loss: then(loss.result() or details))
        if deadline != NEVER:
            left = max((deadline - monotonic_ns()) / 1e9, 0)
            timer = self.loop.call_later(left + TICK, then, details)
            self._loss.add_done_callback(lambda loss: timer.cancel())
        return True

    # Connectivity

    @property
    def state(self) -> State:
        self.peek()
        return self._state.state

    def connect(self) -> None:
        """Begin to connect, unless it is connected or connecting."""
        if not self.closed and self.peek() is None and not self._state.dialling:
            self._dial()

    async def change_of(self, last: State) -> None:
        """Wait until the state differs from `last`."""
        while self.state is last:
            await self._change(None, None)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _settle(loss: asyncio.Future[str], why: str) -> None:
    if not loss.done():
        loss.set_result(why)


def _explain_on_thread(
    dialer: Dialer, loop: asyncio.AbstractEventLoop, then: Callable[[str], Any]
) -> None:
    why = dialer.why_lost(math.inf)
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(then, why)

"""The accept thread of a server: accepts connections, does the handshake, admits them."""

from __future__ import annotations

import errno
import logging
import os
import selectors
import threading
import weakref
from collections import Counter
from collections.abc import Iterable
from time import monotonic
from typing import Protocol

from localrpc import _locks, _log
from localrpc.errors import GreetingError
from localrpc.transports import forks
from localrpc.transports.base import Connection, Greeting, Listener

_logger = _log.logger("server")
_trace = _log.logger("wire")

_FIRST_CLEANUP = 0.1
"""Seconds. A process that was killed takes a moment to release its locks."""
_CLEANUPS = 8
"""Cleanups after a client has come or gone, each after twice the previous pause: 25 s in all."""


_CANNOT_WATCH = (errno.ENOSPC, errno.ENOMEM)
_RETRY_WATCH = 1.0
"""Seconds until epoll is asked again to watch a listener that it has refused."""


class ConnectionQuota:
    """Counts the connections of each user, including those before the end of the handshake."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = _locks.Lock()
        self._count: Counter[int] = Counter()

    def enter(self, uid: int) -> str | None:
        """Count one more connection, or return why it is refused."""
        with self._lock:
            if self._count[uid] < self._most:
                self._count[uid] += 1
                return None
        return (
            f"uid {uid} has {self._most} connections, the most that this server allows one user"
            " (localrpc.max_connections_per_user)"
        )

    def leave(self, uid: int) -> None:
        with self._lock:
            self._count[uid] -= 1
            if self._count[uid] <= 0:
                del self._count[uid]


class Host(Protocol):
    """The owner of an accept loop, whose thread calls these methods."""

    def admit(self, connection: Connection) -> None:
        """Take over a connection after its handshake."""

    def client_lost(self) -> None:
        """Note that a listener's only client has been refused."""


class AcceptLoop:
    """Accepts the clients of all listeners, and does their handshakes.

    It does not hold its host, which holds it.
    """

    def __init__(self, host: weakref.ref[Host]) -> None:
        self._host = host
        # Held from the last step of a handshake to the admission, too: a client that was
        # accepted is admitted before close() returns, and gets GOAWAY like the others.
        self._lock = _locks.RLock()
        self._listeners: list[Listener] = []
        self._greetings: set[Greeting] = set()
        self._thread: threading.Thread | None = None
        self._selector: selectors.BaseSelector | None = None
        self._bell = -1
        self._closing = False
        self._refusals = _log.Seldom(_logger)
        self._cleanups = 0
        self._cleanup_at: float | None = None
        _loops.add(self)

    def add(self, listener: Listener) -> None:
        """Add a listener, also after open(). After close() it is closed at once."""
        with self._lock:
            closing = self._closing
            if not closing:
                self._listeners.append(listener)
        if closing:
            listener.close()
        self._ring()

    def open(self) -> None:
        """Start to accept; clients that came before wait in the listeners' backlogs."""
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # epoll, not poll(2), which would keep a listener and its name while it waits.
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._run, name="localrpc-accept", daemon=True)
        self._thread.start()

    def schedule_cleanup(self) -> None:
        """Schedule cleanup of clients that died while connecting: one has come or gone."""
        with self._lock:
            self._cleanups = 0
            if self._cleanup_at is not None:
                return
            self._cleanup_at = monotonic() + _FIRST_CLEANUP
        self._ring()

    def _clean_up(self) -> float | None:
        """Clean up if it is time to. Return the seconds until the next time."""
        with self._lock:
            if self._cleanup_at is None:
                return None
            if (left := self._cleanup_at - monotonic()) > 0:
                return left
            listeners = list(self._listeners)
            self._cleanups += 1
            pause = _FIRST_CLEANUP * 2**self._cleanups
            self._cleanup_at = monotonic() + pause
        again = [listener.tidy() for listener in listeners]
        with self._lock:
            if self._cleanups and (not any(again) or self._cleanups >= _CLEANUPS):
                self._cleanup_at = None
            return None if self._cleanup_at is None else pause

    def close(self) -> None:
        """Stop listening and release the names, before this returns. Idempotent.

        Clients in the middle of a handshake are told, and can dial again.
        """
        with self._lock:
            if self._closing:
                return
            self._closing = True
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener.close()
        self._ring()

    def disown(self) -> None:
        """Stop listening in a forked child, without affecting the parent."""
        self._closing = True
        forks.forget_all()  # Python warns of a socket that is collected while open
        self._listeners.clear()

    def _ring(self) -> None:
        with self._lock:  # the thread may be about to end, and to close the bell
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    def _run(self) -> None:
        selector = self._selector
        assert selector is not None
        selector.register(self._bell, selectors.EVENT_READ, None)
        known: set[Listener] = set()
        while True:
            retry = None
            with self._lock:
                closing = self._closing
                listeners = list(self._listeners)
            if closing:
                break
            for listener in listeners:
                if listener in known:
                    continue
                try:
                    selector.register(listener.fileno(), selectors.EVENT_READ, listener)
                except (ValueError, OSError) as error:
                    if getattr(error, "errno", None) in _CANNOT_WATCH:
                        _logger.error("%s: cannot accept clients: %s", listener.address, error)
                        retry = _RETRY_WATCH
                        continue
                    # Otherwise it was closed meanwhile.
                known.add(listener)
            waits = (self._expire(), self._clean_up(), retry)
            pauses = [pause for pause in waits if pause is not None]
            # In a function, so that the next wait keeps no reference to its objects.
            self._handle(selector.select(min(pauses, default=None)))
        for greeting in self._greetings:
            greeting.dismiss()
        selector.close()
        with self._lock:
            bell, self._bell = self._bell, -1
        os.close(bell)

    def _handle(self, events: Iterable[tuple[selectors.SelectorKey, int]]) -> None:
        for key, _ in events:
            if key.data is None:
                os.eventfd_read(self._bell)
            elif isinstance(key.data, Listener):
                self._accept(key.data)
            else:
                # Before its socket is closed or passed on: a duplicate of it would
                # keep it in the kernel's set, where it could not be removed any longer.
                self._forget(key.fd)
                self._advance(key.data)

    def _accept(self, listener: Listener) -> None:
        try:
            arrived = listener.accept()
        except (OSError, ValueError):
            return  # closed meanwhile
        for greeting in arrived:
            self._greetings.add(greeting)
            self._advance(greeting)
        if arrived:
            self.schedule_cleanup()

    def _advance(self, greeting: Greeting) -> None:
        assert self._selector is not None
        try:
            with self._lock:
                if self._closing:
                    greeting.dismiss()
                elif connection := greeting.advance():
                    self._greetings.discard(greeting)
                    self._admit(connection)
                    return
                else:
                    self._selector.register(greeting.fileno(), selectors.EVENT_READ, greeting)
                    return
        except GreetingError as error:
            level = logging.DEBUG if error.quiet else logging.WARNING
            # As text, because handlers that keep records would keep the error's traceback, and
            # so the engine. Not every time: a client that tries again causes many.
            text = f"a client was refused: {error}"
            self._refusals.log(level, error.cause, text)
        except Exception:
            _logger.exception("a handshake failed")
            greeting.close()
        if greeting in self._greetings:
            self._refused(greeting)

    def _admit(self, connection: Connection) -> None:
        _trace.log(_log.TRACE, "admitted %s (%s)", connection.peer_name, connection.facts)
        host = self._host()
        if host is None:
            connection.close()
        else:
            host.admit(connection)

    def _expire(self) -> float | None:
        """Refuse clients that have taken too long. Return the seconds until the next one has."""
        now = monotonic()
        for greeting in [each for each in self._greetings if each.deadline <= now]:
            reason = f"a client was refused: {greeting.expired()}"
            self._refusals.log(logging.WARNING, reason, reason)
            descriptor = greeting.fileno()
            self._forget(descriptor)
            greeting.close()
            self._refused(greeting)
        return min((max(0.0, each.deadline - now) for each in self._greetings), default=None)

    def _refused(self, greeting: Greeting) -> None:
        self._greetings.discard(greeting)
        self.schedule_cleanup()
        host = self._host()
        if greeting.single and host is not None:
            host.client_lost()

    def _forget(self, descriptor: int) -> None:
        assert self._selector is not None
        try:
            self._selector.unregister(descriptor)
        except (KeyError, ValueError, OSError):
            pass


_loops: weakref.WeakSet[AcceptLoop] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for loop in list(_loops):
        loop.disown()


os.register_at_fork(after_in_child=_after_fork_in_child)

"""The thread that stands at a server's doors: accepts, greets, admits."""

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
from localrpc.transports.base import Connection, Greeting, Listener

_logger = _log.logger("server")
_trace = _log.logger("wire")

_FIRST_LOOK = 0.1
"""Seconds. A process that was killed takes a moment to let go of what it had locked."""
_LOOKS = 8
"""Looks at what clients may have left, each after twice the pause before: 25 s in all."""


_NO_WATCH = (errno.ENOSPC, errno.ENOMEM)
_DEAF = 1.0
"""Seconds until epoll is asked again for a listener that it would not watch."""


class Guests:
    """How many connections each user has, those that are still being greeted included."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = _locks.Lock()
        self._count: Counter[int] = Counter()

    def enter(self, uid: int) -> str | None:
        """One more; or why not."""
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
    """Whose doors they are. Both are called on the doors' thread."""

    def admit(self, connection: Connection) -> None:
        """Take over a greeted connection."""

    def lost_one(self) -> None:
        """A listener's only client has been turned away."""


class Doors:
    """Listeners, and the clients that have not yet introduced themselves.

    They do not hold their host, which holds them.
    """

    def __init__(self, host: weakref.ref[Host]) -> None:
        self._host = host
        # Held from a greeting's last step to its admission, too: whoever was told that it
        # may come in is in before close() returns, and hears of the end as everybody does.
        self._lock = _locks.RLock()
        self._listeners: list[Listener] = []
        self._greetings: set[Greeting] = set()
        self._thread: threading.Thread | None = None
        self._selector: selectors.BaseSelector | None = None
        self._bell = -1
        self._closing = False
        self._complaints = _log.Seldom(_logger)
        self._looks = 0
        self._look_at: float | None = None

    def add(self, listener: Listener) -> None:
        """Also after open(). After close() it is closed, too."""
        with self._lock:
            closing = self._closing
            if not closing:
                self._listeners.append(listener)
        if closing:
            listener.close()
        self._ring()

    def open(self) -> None:
        """Start to accept: until now clients have waited in the listeners' backlogs."""
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # epoll, not poll(2), which would keep a listener and its name while it waits.
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._run, name="localrpc-doors", daemon=True)
        self._thread.start()

    def look_around(self) -> None:
        """Somebody has come or gone: have the listeners clear up after who never got in."""
        with self._lock:
            self._looks = 0
            if self._look_at is not None:
                return
            self._look_at = monotonic() + _FIRST_LOOK
        self._ring()

    def _tidy(self) -> float | None:
        """A look, if it is time for one; seconds until the next."""
        with self._lock:
            if self._look_at is None:
                return None
            if (left := self._look_at - monotonic()) > 0:
                return left
            listeners = list(self._listeners)
            self._looks += 1
            pause = _FIRST_LOOK * 2**self._looks
            self._look_at = monotonic() + pause
        again = [listener.tidy() for listener in listeners]
        with self._lock:
            if self._looks and (not any(again) or self._looks >= _LOOKS):
                self._look_at = None
            return None if self._look_at is None else pause

    def close(self) -> None:
        """Stop listening and give the names back, before this returns. Idempotent.

        Who is still being greeted is told so, and can dial again.
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
        """In a forked child: the parent goes on listening, this process does not."""
        self._closing = True
        self._listeners.clear()

    def _ring(self) -> None:
        with self._lock:  # the thread may be on its way out, and take the bell with it
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    def _run(self) -> None:
        selector = self._selector
        assert selector is not None
        selector.register(self._bell, selectors.EVENT_READ, None)
        known: set[Listener] = set()
        while True:
            deaf = None
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
                    if getattr(error, "errno", None) in _NO_WATCH:
                        _logger.error("%s: nobody can come: %s", listener.address, error)
                        deaf = _DEAF
                        continue
                    # Else it was closed meanwhile.
                known.add(listener)
            waits = (self._expire(), self._tidy(), deaf)
            pauses = [pause for pause in waits if pause is not None]
            # One turn is a function, so that the next wait keeps nothing of it.
            self._attend(selector.select(min(pauses, default=None)))
        for greeting in self._greetings:
            greeting.dismiss()
        selector.close()
        with self._lock:
            bell, self._bell = self._bell, -1
        os.close(bell)

    def _attend(self, events: Iterable[tuple[selectors.SelectorKey, int]]) -> None:
        for key, _ in events:
            if key.data is None:
                os.eventfd_read(self._bell)
            elif isinstance(key.data, Listener):
                self._accept(key.data)
            else:
                # Before its socket is closed or passed on: a duplicate of it
                # would keep it in the kernel's set, where nobody finds it again.
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
            self.look_around()

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
            # As text: the error has a traceback, and that would keep the engine in every
            # handler that keeps records. Not each: one that tries again brings many.
            text = f"a client was turned away: {error}"
            self._complaints.log(level, error.cause, text)
        except Exception:
            _logger.exception("a greeting failed")
            greeting.close()
        if greeting in self._greetings:
            self._turned_away(greeting)

    def _admit(self, connection: Connection) -> None:
        _trace.log(_log.TRACE, "admitted %s (%s)", connection.peer_name, connection.facts)
        host = self._host()
        if host is None:
            connection.close()
        else:
            host.admit(connection)

    def _expire(self) -> float | None:
        """Turn away who has taken too long; seconds until the next one has."""
        now = monotonic()
        for greeting in [each for each in self._greetings if each.deadline <= now]:
            reason = f"a client was turned away: {greeting.expired()}"
            self._complaints.log(logging.WARNING, reason, reason)
            descriptor = greeting.fileno()
            self._forget(descriptor)
            greeting.close()
            self._turned_away(greeting)
        return min((max(0.0, each.deadline - now) for each in self._greetings), default=None)

    def _turned_away(self, greeting: Greeting) -> None:
        self._greetings.discard(greeting)
        self.look_around()
        host = self._host()
        if greeting.single and host is not None:
            host.lost_one()

    def _forget(self, descriptor: int) -> None:
        assert self._selector is not None
        try:
            self._selector.unregister(descriptor)
        except (KeyError, ValueError, OSError):
            pass

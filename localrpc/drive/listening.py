"""A server's targets, and the connections of its clients, for servers of every API."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable
from typing import Any

from localrpc import _locks, _log
from localrpc.address import Address
from localrpc.drive.accept_loop import AcceptLoop, ConnectionQuota
from localrpc.drive.core import ffi, lib, publish
from localrpc.drive.finalizers import settle
from localrpc.drive.notify import notify
from localrpc.errors import ListenError
from localrpc.options import Options
from localrpc.transports import Admission, Connection, transport_for
from localrpc.wire import codec

_logger = _log.logger("server")


class Listening:
    """The listeners of one server, and its connections. Thread-safe.

    Its accept loop gives each connection to `engine`. `on_deserted`, a method of the server, is
    called on any thread when a listener's only client was the last that could come. The server,
    which holds this object, is not held by it.
    """

    def __init__(self, engine: Any, options: Options, on_deserted: Callable[[], object]) -> None:
        self._engine = engine
        self._options = options
        self._on_deserted = weakref.WeakMethod(on_deserted)
        self.connections: dict[int, Connection] = {}
        """By the core's number."""
        self.targets: list[str] = []
        """Where it serves, or will serve once it has started."""
        self._lock = _locks.RLock()
        self._quota = ConnectionQuota(options.max_connections_per_user)
        self._accept_loop = AcceptLoop(weakref.ref(self))
        self._sources = 0
        self._activated = False
        self._started = False
        self._draining = False
        self._closed = False
        self._broken = _log.Seldom(_logger)
        self._told: str | None = None
        self._pid = os.getpid()

    @property
    def inherited(self) -> bool:
        """True if this process has it only through a fork."""
        return os.getpid() != self._pid

    def listen(self, address: Address, *, security: str = "insecure") -> int:
        """Listen at a target. Return its port, 1 if it has none. Raises ListenError.

        `security` is in the auth_context() of calls that arrive there.
        """
        settle()  # a server that was dropped may still have the name
        transport = transport_for(address.scheme)
        if self._options.access.others and (reason := transport.closed_to_others(address)):
            raise ListenError(str(address), reason)
        load = lib.lr_load_page(self._engine) if self._options.worker.group else -1
        admission = Admission(self._quota.enter, self._quota.leave, security, load)
        listener = transport.listen(address, self._options, admission)
        with self._lock:
            self._sources += 1
            self._activated |= listener.activated
        self._accept_loop.add(listener)
        self.say_where(str(address), listener.port)
        self._tell_manager("READY=1")
        return listener.port

    def open(self) -> None:
        """Start to accept clients."""
        self._accept_loop.open()
        with self._lock:
            self._started = True
            targets = list(self.targets)
        self._publish(targets)
        for target in [self._options.name] if self._options.name else targets:
            _logger.info("serving on %s", target)
        self._tell_manager("READY=1")

    def say_where(self, target: str, port: int) -> None:
        """Log where the server listens, now or when it starts."""
        if port != 1 and target.endswith(":0"):
            target = f"{target[:-1]}{port}"
        with self._lock:
            self.targets.append(target)
            if not self._started:
                return
            targets = list(self.targets)
        self._publish(targets)
        _logger.info("serving on %s", target)

    def _publish(self, targets: list[str]) -> None:
        group, number = self._options.worker
        publish(
            self._engine,
            self._options.name or " ".join(targets),
            note=f"worker {number} of group {group}" if group else "",
        )

    def _tell_manager(self, state: str) -> None:
        """Notify a service manager that passed a socket: READY once, then STOPPING once."""
        with self._lock:
            due = self._told is None if state == "READY=1" else self._told == "READY=1"
            if not (due and self._started and self._activated) or self.inherited:
                return
            self._told = state
        notify(state)

    # Connections

    def admit(self, connection: Connection) -> None:
        """Take over a connection after its handshake; called by the accept loop."""
        with self._lock:
            number = lib.lr_engine_admit(
                self._engine, connection.link.take(), connection.hello.window, connection.peer.uid
            )
            if number >= 0:
                self.connections[number] = connection
        if number < 0:
            if not self._closed:  # a server that has stopped meanwhile is right to refuse
                text = ffi.new("char[]", 200)
                lib.lr_engine_error(self._engine, text, 200)
                reason = ffi.string(text).decode()
                _logger.error("%s: a connection was refused: %s", connection.peer_name, reason)
            connection.close()

    def connection(self, number: int) -> Connection | None:
        found = self.connections.get(number)
        if found is None:
            with self._lock:  # admit() may be about to add it
                found = self.connections.get(number)
        return found

    def connection_ended(self, number: int, result: int, faulty: bool, reason: bytes) -> None:
        """Note that the core has ended a connection."""
        with self._lock:
            connection = self.connections.pop(number, None)
        if connection is None:
            return
        if result == lib.LR_PROTOCOL or faulty:
            why = reason.decode()
            self._broken.log(logging.ERROR, why, f"{connection.peer_name}: {why}; closed")
        connection.close()
        self._accept_loop.schedule_cleanup()
        if connection.single:
            self.client_lost()

    def stay(self) -> None:
        """Do not stop for lack of clients, because the server has other ports, too."""
        with self._lock:
            self._sources += 1

    def client_lost(self) -> None:
        """Have the server stop if this was the last client that could come."""
        with self._lock:
            self._sources -= 1
            if self._sources:
                return
        on_deserted = self._on_deserted()
        if on_deserted is not None:
            on_deserted()

    # Stopping

    def drain(self) -> None:
        """Refuse new connections and calls, and tell the clients."""
        self._tell_manager("STOPPING=1")
        with self._lock:
            told, self._draining = self._draining, True
        if self._started and not told and not self.inherited:
            _logger.info("stopping: no new calls, %d in progress", lib.lr_live(self._engine))
        self._accept_loop.close()
        block = codec.encode_goaway("the server is stopping")
        lib.lr_goaway(self._engine, block, len(block))

    def close(self) -> None:
        """Stop listening, before the engine is closed. Idempotent."""
        self._closed = True
        self._tell_manager("STOPPING=1")
        self._accept_loop.close()

    def say_stopped(self) -> None:
        if self._started and not self.inherited:
            _logger.info("stopped")

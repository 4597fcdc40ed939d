"""The parts behind a server: its engine, its accept loop, and its service thread."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from localrpc import _locks, _log
from localrpc.address import Address
from localrpc.calls import texts
from localrpc.drive.accept_loop import AcceptLoop, ConnectionQuota
from localrpc.drive.callback_queue import CallbackQueue
from localrpc.drive.core import Io, WorkerIo, ffi, lib, own_engine
from localrpc.drive.executors import Place, Workers, workers_for
from localrpc.drive.finalizers import settle
from localrpc.drive.notify import notify
from localrpc.errors import ListenError
from localrpc.metadata import SizeLimits
from localrpc.options import Options
from localrpc.transports import Admission, Connection, transport_for
from localrpc.wire import codec

_logger = _log.logger("server")


class Serving:
    """One engine with many connections. Thread-safe.

    Its threads hold it until it has stopped; the objects that it holds do not. Once it has
    stopped it cannot start again. `on_released` runs when the owner of the pool shuts the pool
    down. `callback_lock` is shared by all contexts, which are too many to have one each.
    """

    def __init__(
        self,
        pool: Executor,
        options: Options,
        max_calls: int | None,
        on_stopped: Callable[[], None],
        on_released: Callable[[], None],
    ) -> None:
        raw = lib.lr_engine_new(
            lib.LR_SERVER,
            options.window,
            options.max_receive,
            -1 if max_calls is None else max_calls,
        )
        if raw == ffi.NULL:
            raise MemoryError(f"no engine for a server: {os.strerror(ffi.errno)}")
        self.engine: Any = own_engine(raw)
        lib.lr_limit_users(raw, options.max_calls_per_user, options.max_memory_per_user)
        lib.lr_limit_waiting(raw, options.max_waiting_calls_per_user)
        self.options = options
        self.metadata_limits = SizeLimits(options.metadata_soft, options.max_metadata)
        self.connections: dict[int, Connection] = {}
        self.callback_lock = _locks.Lock()
        self.callbacks = CallbackQueue("localrpc-callbacks", "Exception calling callback!")
        self._lock = _locks.RLock()
        self._watched: dict[int, Callable[[], None]] = {}
        self._quota = ConnectionQuota(options.max_connections_per_user)
        self._accept_loop = AcceptLoop(weakref.ref(self))
        self._sources = 0
        self._activated = False
        self._started = False
        self.targets: list[str] = []
        """The targets at which it serves, or will serve once it has started."""
        self._draining = False
        self._broken = _log.Seldom(_logger)
        self._told: str | None = None
        self._workers: Workers[Serving] = workers_for(pool, self, limited=max_calls is not None)
        self._on_stopped = on_stopped
        self._on_released = on_released
        self._stopped = False
        self._orphaned: Callable[[Serving], object] | None = None
        self._pid = os.getpid()
        self.spare = self._workers.spare
        _servings.add(self)

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
        if self.options.access.others and (reason := transport.closed_to_others(address)):
            raise ListenError(str(address), reason)
        admission = Admission(self._quota.enter, self._quota.leave, security)
        listener = transport.listen(address, self.options, admission)
        with self._lock:
            self._sources += 1
            self._activated |= listener.activated
        self._accept_loop.add(listener)
        self.say_where(str(address), listener.port)
        self._tell_manager("READY=1")
        return listener.port

    def start(self, accept: Callable[[WorkerIo], int], place: Place[Serving]) -> None:
        """Start to serve: `accept` serves the call in an Io, `place` prepares it for a pool."""
        thread = threading.Thread(target=self._hear, name="localrpc-service", daemon=True)
        thread.start()
        self._workers.start(accept, place)
        self._accept_loop.open()
        with self._lock:
            self._started = True
            targets = list(self.targets)
        for target in targets:
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
        _logger.info("serving on %s", target)

    def expect_other_pools(self) -> None:
        """Take calls while the server's pool is busy, because a handler has its own pool."""
        self._workers.expect_other_pools()

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
                self.engine, connection.link.take(), connection.hello.window, connection.peer.uid
            )
            if number >= 0:
                self.connections[number] = connection
        if number < 0:
            if not self._stopped:  # a server that has stopped meanwhile is right to refuse
                text = ffi.new("char[]", 200)
                lib.lr_engine_error(self.engine, text, 200)
                reason = ffi.string(text).decode()
                _logger.error("%s: a connection was refused: %s", connection.peer_name, reason)
            connection.close()

    def stay(self) -> None:
        """Do not stop for lack of clients, because the server has other ports, too."""
        with self._lock:
            self._sources += 1

    def client_lost(self) -> None:
        """Stop if this was the last client that could come: a listener's only one has gone."""
        with self._lock:
            self._sources -= 1
            if self._sources:
                return
        self.drain()
        self.cancel_all()

    def connection(self, number: int) -> Connection | None:
        found = self.connections.get(number)
        if found is None:
            with self._lock:  # admit() may be about to add it
                found = self.connections.get(number)
        return found

    def _hear(self) -> None:
        io = Io()
        while True:
            kind = lib.lr_service(self.engine, io.raw)
            if kind == lib.LR_K_ENDED:
                with self._lock:
                    end = self._watched.pop(io.raw.call, None)
                if end is not None:
                    end()
                    del end  # or it would keep its call until the next one ends
            elif kind == lib.LR_K_CONN_CLOSED:
                with self._lock:
                    connection = self.connections.pop(io.raw.conn, None)
                if connection is not None:
                    if io.raw.size == lib.LR_PROTOCOL or io.raw.flags:
                        reason = io.buf[: io.raw.count].decode()
                        text = f"{connection.peer_name}: {reason}; closed"
                        self._broken.log(logging.ERROR, reason, text)
                    connection.close()
                    self._accept_loop.schedule_cleanup()
                    if connection.single:
                        self.client_lost()
                    del connection
            elif kind == lib.LR_K_DRAINED:
                self.finish()
            elif kind not in (lib.LR_AGAIN, lib.LR_K_YIELD):
                return
            if self._orphaned is not None:
                self._orphaned(self)
                self._orphaned = None

    def watch(self, call: int, deadline: int, end: Callable[[], None]) -> bool:
        """Run `end` once when the client, its death, or `deadline` ends the call.

        Return False if the call has already ended: then `end` does not run.
        """
        with self._lock:
            self._watched[call] = end
        if lib.lr_watch(self.engine, call, deadline) == 0:
            return True
        with self._lock:  # finish() may have taken it
            return self._watched.pop(call, None) is None

    def unwatch(self, call: int) -> None:
        with self._lock:
            self._watched.pop(call, None)

    # Stopping

    def orphan(self, stop: Callable[[Serving], object]) -> None:
        """Run `stop` on the service thread, because the server is garbage.

        For a finalizer: takes no lock.
        """
        self._orphaned = stop
        lib.lr_kick(self.engine)

    def drain(self) -> None:
        """Refuse new connections and calls; finish() runs by itself after the last call."""
        self._tell_manager("STOPPING=1")
        with self._lock:
            told, self._draining = self._draining, True
        if self._started and not told and not self.inherited:
            _logger.info("stopping: no new calls, %d in progress", lib.lr_live(self.engine))
        self._accept_loop.close()
        block = codec.encode_goaway("the server is stopping")
        lib.lr_goaway(self.engine, block, len(block))

    def cancel_all(self) -> None:
        """End every call with grpcio's status for this, without waiting for handlers."""
        number, text = texts.CANCELLING_ALL
        lib.lr_cancel_all(self.engine, number, text, len(text))
        self.finish()

    def finish(self) -> None:
        """Close the connections and end the threads. Idempotent."""
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
        self._tell_manager("STOPPING=1")
        self._accept_loop.close()
        lib.lr_stop(self.engine)
        lib.lr_engine_close(self.engine)
        with self._lock:  # from here on watch() returns False
            ends = list(self._watched.values())
            self._watched.clear()
        self._workers.leave()
        for end in ends:
            end()
        if self._started and not self.inherited:
            _logger.info("stopped")
        self._on_stopped()

    def release_pool(self) -> None:
        """End the workers, busy ones after their call, because the pool is shutting down."""
        self._let_go()
        self._on_released()

    def _let_go(self) -> None:
        self.drain()
        lib.lr_stop(self.engine)

    def let_exit(self) -> None:
        """End the workers at interpreter exit, before the pool's threads are joined."""
        if not self.inherited:
            self._workers.leave()
            self._let_go()


_servings: weakref.WeakSet[Serving] = weakref.WeakSet()


def _at_exit() -> None:
    for serving in list(_servings):
        serving.let_exit()


def _after_fork_in_child() -> None:
    for serving in list(_servings):
        serving._accept_loop.disown()


# Runs before concurrent.futures joins its threads, because executors has
# imported that first; atexit's own callbacks come too late.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
os.register_at_fork(after_in_child=_after_fork_in_child)

"""The parts behind a server: its engine, its accept loop, and its service thread."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from localrpc import _locks, _log
from localrpc.calls import texts
from localrpc.drive.callback_queue import CallbackQueue
from localrpc.drive.core import Io, WorkerIo, ffi, lib, own_engine
from localrpc.drive.executors import Place, Workers, workers_for
from localrpc.drive.listening import Listening
from localrpc.metadata import SizeLimits
from localrpc.options import Options

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
        self.callback_lock = _locks.Lock()
        self.callbacks = CallbackQueue("localrpc-callbacks", "Exception calling callback!")
        self._lock = _locks.RLock()
        self._watched: dict[int, Callable[[], None]] = {}
        self._listening = Listening(self.engine, options, self._deserted)
        self.connections = self._listening.connections
        self.connection = self._listening.connection
        self.targets = self._listening.targets
        self.listen = self._listening.listen
        self.say_where = self._listening.say_where
        self.stay = self._listening.stay
        self._workers: Workers[Serving] = workers_for(pool, self, limited=max_calls is not None)
        self._on_stopped = on_stopped
        self._on_released = on_released
        self._stopped = False
        self._orphaned: Callable[[Serving], object] | None = None
        self.spare = self._workers.spare
        _servings.add(self)

    @property
    def inherited(self) -> bool:
        """True if this process has it only through a fork."""
        return self._listening.inherited

    def start(self, accept: Callable[[WorkerIo], int], place: Place[Serving]) -> None:
        """Start to serve: `accept` serves the call in an Io, `place` prepares it for a pool."""
        thread = threading.Thread(target=self._hear, name="localrpc-service", daemon=True)
        thread.start()
        self._workers.start(accept, place)
        self._listening.open()

    def expect_other_pools(self) -> None:
        """Take calls while the server's pool is busy, because a handler has its own pool."""
        self._workers.expect_other_pools()

    def _deserted(self) -> None:
        self.drain()
        self.cancel_all()

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
                self._listening.connection_ended(
                    io.raw.conn, io.raw.size, bool(io.raw.flags), io.buf[: io.raw.count]
                )
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
        self._listening.drain()

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
        self._listening.close()
        lib.lr_stop(self.engine)
        lib.lr_engine_close(self.engine)
        with self._lock:  # from here on watch() returns False
            ends = list(self._watched.values())
            self._watched.clear()
        self._workers.leave()
        for end in ends:
            end()
        self._listening.say_stopped()
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


# Runs before concurrent.futures joins its threads, because executors has
# imported that first; atexit's own callbacks come too late.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]

"""Connections to other machines: channels and servers of grpcio, behind localrpc's API."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import grpc

from localrpc import _locks, _log
from localrpc.address import Address
from localrpc.calls.handlers import HandlerTable
from localrpc.drive import remote
from localrpc.errors import ListenError
from localrpc.options import without_own

_logger = _log.logger("server")


def channel(
    address: Address,
    credentials: grpc.ChannelCredentials | None,
    options: Iterable[tuple[str, Any]] | None,
    compression: grpc.Compression | None,
) -> grpc.Channel:
    """Return grpcio's own channel."""
    opened: grpc.Channel = remote.channel(grpc, address, credentials, options, compression)
    return opened


class RemoteSide:
    """The grpcio servers at a server's grpc: targets. Thread-safe.

    They share its handlers, interceptors and pool. One listens at all targets that are added before
    start(). grpcio ignores ports that are added to a running server, so each later target gets a
    server of its own.
    """

    def __init__(
        self,
        pool: Executor,
        table: HandlerTable,
        interceptors: Sequence[grpc.ServerInterceptor],
        options: Iterable[tuple[str, Any]],
        max_calls: int | None,
        compression: grpc.Compression | None,
        *,
        xds: bool,
    ) -> None:
        self._pool = _Pool(pool, weakref.WeakMethod(self._stop_aside))
        self._handlers: list[grpc.GenericRpcHandler] = [table]
        self._interceptors = list(interceptors)
        self._options = without_own(options)
        self._max_calls = max_calls
        self._compression = compression
        self._xds = xds
        self._lock = _locks.Lock()
        self._waiting: grpc.Server | None = None
        self._running: list[grpc.Server] = []
        self._started = self._stopping = False
        self._on_stopped: Callable[[], None] | None = None

    def listen(self, address: Address, credentials: grpc.ServerCredentials | None) -> int:
        """Listen there; return the port that grpcio reports. Raises ListenError."""
        with self._lock:
            if self._stopping:
                raise ListenError(str(address), "the server has been stopped")
            server = self._waiting or self._make()
            port = remote.listen(server, address, credentials)
            if self._started:
                server.start()
                self._running.append(server)
            else:
                self._waiting = server
        return port

    def _make(self) -> grpc.Server:
        return grpc.server(
            self._pool,  # type: ignore[arg-type]
            handlers=self._handlers,
            interceptors=self._interceptors,
            options=self._options,
            maximum_concurrent_rpcs=self._max_calls,
            compression=self._compression,
            xds=self._xds,
        )

    def start(self, on_stopped: Callable[[], None]) -> None:
        """Start the servers. `on_stopped` runs once, when the last call after stop() has ended."""
        with self._lock:
            self._started = True
            server, self._waiting = self._waiting, None
            if server is not None:
                server.start()
                self._running.append(server)
            if not self._stopping:
                self._on_stopped = on_stopped
                return
        on_stopped()

    def stop(self, grace: float | None) -> None:
        """Stop as grpcio does: with None all calls have ended when this returns."""
        with self._lock:
            self._stopping = True
            self._waiting = None
            running = tuple(self._running)
            on_stopped, self._on_stopped = self._on_stopped, None
        events = [_stop(server, grace) for server in running]
        if on_stopped is None:
            return

        def tell() -> None:
            for event in events:
                event.wait()
            on_stopped()

        if all(event.is_set() for event in events):
            tell()
        else:
            threading.Thread(target=tell, name="localrpc-grpc-stop", daemon=True).start()

    def drain(self) -> None:
        """Refuse new calls; `on_stopped` runs when the last call has ended."""
        thread = self._stop_aside(threading.TIMEOUT_MAX)
        if thread is not None:
            thread.join()

    def _stop_aside(self, grace: float | None) -> threading.Thread | None:
        """Call stop() on a daemon thread, because grpcio then makes its own thread one, too."""
        thread = threading.Thread(
            target=self.stop, args=(grace,), name="localrpc-grpc-stop", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            return None  # the interpreter is exiting, and the calls end with it
        return thread


def _stop(server: grpc.Server, grace: float | None) -> threading.Event:
    try:
        return server.stop(grace)
    except RuntimeError:
        # The interpreter is exiting, and grpcio gets no thread to wait for the grace.
        return server.stop(None)


class _Pool(Executor):
    """The user's pool. If that refuses a call, grpcio's serving thread must not be told."""

    def __init__(self, pool: Executor, gone: weakref.WeakMethod[Callable[[None], object]]) -> None:
        self._pool = pool
        self._gone = gone

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        try:
            return self._pool.submit(fn, *args, **kwargs)
        except RuntimeError as error:
            _logger.error("the thread pool accepts no more calls: %s", error)
            gone = self._gone()
            if gone is not None:
                gone(None)  # on a thread of its own: grpcio holds a lock that stop() needs
            refused: Future[Any] = Future()
            refused.set_exception(error)
            return refused

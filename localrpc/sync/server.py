"""grpc.Server over local links."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from enum import Enum, auto
from functools import partial
from time import monotonic
from typing import Any

import grpc

from localrpc import _log
from localrpc.drive.core import patience
from localrpc.drive.serving import Serving
from localrpc.errors import AddressError, ListenError
from localrpc.options import parse_options
from localrpc.sync.channel import text
from localrpc.sync.handling import Handling

_logger = _log.logger("server")


class _Stage(Enum):
    NEW = auto()
    STARTED = auto()
    GRACE = auto()
    STOPPED = auto()


class Server(grpc.Server):
    """Serves any number of targets from one pool; dropping the last reference stops it."""

    def __init__(
        self,
        thread_pool: Executor,
        handlers: Sequence[grpc.GenericRpcHandler] | None,
        interceptors: Sequence[grpc.ServerInterceptor] | None,
        options: Iterable[tuple[str, Any]] | None,
        maximum_concurrent_rpcs: int | None,
    ) -> None:
        _validate(handlers or ())
        parsed = parse_options(options)
        progress = _Progress()
        self._progress = progress
        self._handling = Handling(handlers or (), interceptors or (), parsed.max_send)
        self._serving = Serving(thread_pool, parsed, maximum_concurrent_rpcs, progress.stopped)

    def add_generic_rpc_handlers(
        self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]
    ) -> None:
        generic_rpc_handlers = list(generic_rpc_handlers)
        _validate(generic_rpc_handlers)
        self._handling.generic.extend(generic_rpc_handlers)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        if self._progress.stage is _Stage.STARTED:
            _logger.warning("Cannot register method handlers once server has started")
            return
        self._handling.registered.update(
            (f"/{service_name}/{method}", handler) for method, handler in method_handlers.items()
        )

    def add_insecure_port(self, address: str) -> int:
        """tcp:'s port, else 1 as for grpcio's Unix sockets.

        Raises RuntimeError when the name cannot be had.
        """
        try:
            return self._serving.listen(text(address))
        except AddressError as error:
            raise ListenError(address, str(error)) from error

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        """A local link has the kernel's word for who is on the other side, and no TLS."""
        raise RuntimeError(
            f"Failed to bind to address {address}: localrpc has no secure ports;"
            " use add_insecure_port (the peer's user is checked) or grpc.server"
        )

    def start(self) -> None:
        with self._progress.lock:
            if self._progress.stage in (_Stage.STARTED, _Stage.GRACE):
                raise ValueError("Cannot start already-started server!")
            if self._progress.stage is _Stage.STOPPED:
                raise ValueError("the server has already started")
            self._progress.stage = _Stage.STARTED
        self._serving.start(self._handling.acceptor(self._serving), self._handling.take)

    def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Whether it timed out."""
        return not _wait(self._progress.terminated, timeout)

    def stop(self, grace: float | None) -> threading.Event:
        """With None, end all calls and return when that is done; else at once.

        A server that has not been started stays as it is: it can still be.
        """
        if self._progress.stage is _Stage.NEW:
            stopped = threading.Event()
            stopped.set()
            return stopped
        return _stop(self._progress, self._serving, grace)

    def __del__(self) -> None:
        serving = self.__dict__.get("_serving")
        if serving is None or serving.inherited:
            return
        # A collection can come anywhere, so the service thread does the work.
        if self._progress.stage is _Stage.NEW:
            serving.finish()
        elif self._progress.stage is _Stage.STARTED:
            serving.orphan(partial(_stop, self._progress, serving, None))


class _Progress:
    """How far a server has come; apart from it, so that its threads do not keep it alive."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.stage = _Stage.NEW
        self.terminated = threading.Event()
        self._events: list[threading.Event] = [self.terminated]

    def event(self) -> threading.Event:
        """Set once the server has stopped. The lock is held."""
        event = threading.Event()
        self._events.append(event)
        return event

    def stopped(self) -> None:
        with self.lock:
            self.stage = _Stage.STOPPED
            events, self._events = self._events, []
        for event in events:
            event.set()


def _stop(progress: _Progress, serving: Serving, grace: float | None) -> threading.Event:
    with progress.lock:
        stage = progress.stage
        if stage in (_Stage.NEW, _Stage.STOPPED) or serving.inherited:
            event = threading.Event()
            event.set()
            if stage is _Stage.NEW:
                progress.stage = _Stage.STOPPED
        else:
            event = progress.event()
            progress.stage = _Stage.GRACE
    if stage is _Stage.NEW:
        serving.finish()
    if event.is_set():
        return event
    drained = threading.Event()
    if grace is not None:

        def cancel_after_grace() -> None:
            drained.wait()
            if not event.wait(grace):
                serving.cancel_all()

        # Once drained the server may be at its end, and so may the program, which
        # cannot start a thread any more.
        threading.Thread(target=cancel_after_grace, name="localrpc-grace", daemon=True).start()
    if stage is _Stage.STARTED:
        serving.drain()
    drained.set()
    if grace is None:
        serving.cancel_all()
        _wait(event, None)
    return event


def _wait(event: threading.Event, timeout: float | None) -> bool:
    """event.wait(), from which the main thread comes back in time for its signals."""
    until = None if timeout is None else monotonic() + timeout
    while True:
        left = None if until is None else max(until - monotonic(), 0)
        if event.wait(patience(left)):
            return True
        if left is not None and patience(left) == left:
            return False


def _validate(handlers: Iterable[grpc.GenericRpcHandler]) -> None:
    for handler in handlers:
        if getattr(handler, "service", None) is None:
            raise AttributeError(
                # No space after "to", as in grpcio.
                f'"{handler}" must conform togrpc.GenericRpcHandler type but does not have'
                ' "service" method!'
            )

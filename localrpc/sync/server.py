"""grpc.Server over local links."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

import grpc

from localrpc import _locks, _log
from localrpc.address import Address
from localrpc.calls.handlers import HandlerTable, MethodHandler
from localrpc.calls.lifecycle import Lifecycle, Stage
from localrpc.drive import ports
from localrpc.drive.core import LONGEST, patience
from localrpc.drive.finalizers import run_later
from localrpc.drive.greenlets import refuse_greenlets
from localrpc.drive.methods import has_other_pools
from localrpc.drive.serving import Serving
from localrpc.options import parse_options
from localrpc.sync.channel import instruments
from localrpc.sync.handling import Handling

if TYPE_CHECKING:
    from localrpc.sync.remote import RemoteSide

_logger = _log.logger("server")


class Server(grpc.Server):
    """Serves any number of targets from one pool; dropping the last reference stops it."""

    def __init__(
        self,
        thread_pool: Executor,
        handlers: Sequence[grpc.GenericRpcHandler] | None,
        interceptors: Sequence[grpc.ServerInterceptor] | None,
        options: Iterable[tuple[str, Any]] | None,
        maximum_concurrent_rpcs: int | None,
        compression: grpc.Compression | None,
        *,
        xds: bool,
    ) -> None:
        refuse_greenlets()
        table = HandlerTable(handlers or ())
        pairs = tuple(options or ())
        interceptors = tuple(interceptors or ())
        parsed = parse_options(pairs)
        progress = _Progress()
        # Not for grpc: targets, whose servers are grpcio's and have its instruments.
        intercepted = instruments.before(interceptors)
        handling = Handling(table, intercepted, parsed.max_send)
        self._progress = progress
        self._table = table
        self._handling = handling
        self._serving = Serving(
            thread_pool, parsed, maximum_concurrent_rpcs, progress.ended, progress.pool_released
        )

        def make_remote() -> RemoteSide:
            from localrpc.sync.remote import RemoteSide

            return RemoteSide(
                thread_pool,
                table,
                interceptors,
                pairs,
                maximum_concurrent_rpcs,
                compression,
                xds=xds,
            )

        self._make_remote = make_remote

    def add_generic_rpc_handlers(
        self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]
    ) -> None:
        self._table.add(generic_rpc_handlers)
        self._look_for_pools()

    def _look_for_pools(self) -> None:
        if self._progress.stage is Stage.STARTED and has_other_pools(self._table):
            self._serving.expect_other_pools()

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, MethodHandler]
    ) -> None:
        if self._progress.stage is Stage.STARTED:
            _logger.warning("Cannot register method handlers once server has started")
            return
        self._table.register(service_name, method_handlers)

    def add_insecure_port(self, address: str) -> int:
        """Listen at a target. Return the port for tcp: and grpc:, otherwise 1, as grpcio does.

        Raises RuntimeError if it cannot listen there.
        """
        return ports.add_insecure(self._serving, address, self._listen_remotely)

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        """Listen as add_insecure_port(): grpc: targets take any credentials, others local ones.

        Raises RuntimeError for other credentials, and if it cannot listen there; TypeError for
        None.
        """
        return ports.add_secure(self._serving, address, server_credentials, self._listen_remotely)

    def _listen_remotely(self, address: Address, credentials: grpc.ServerCredentials | None) -> int:
        return self._progress.remote(self._make_remote).listen(address, credentials)

    def start(self) -> None:
        with self._progress.lock:
            before = self._progress.life.start()
            remote = self._progress.remote_side
        if before is Stage.STOPPED:
            raise ValueError("the server has already started")
        if before is not Stage.NEW:
            raise ValueError("Cannot start already-started server!")
        self._serving.start(self._handling.acceptor(self._serving), self._handling.place)
        self._look_for_pools()
        if remote is not None:
            remote.start(self._progress.ended)

    def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Wait until the server has ended. Return True if `timeout` (seconds) passed first."""
        return not _wait(self._progress.terminated, timeout)

    def stop(self, grace: float | None) -> threading.Event:
        """With None, end all calls and return when that is done; else return at once.

        `grace` is in seconds. A server that has not been started can still be started afterwards.
        """
        if self._progress.stage is Stage.NEW:
            stopped = threading.Event()
            stopped.set()
            return stopped
        return _stop(self._progress, self._serving, grace)

    def __repr__(self) -> str:
        targets = ", ".join(self._serving.targets) or "no target"
        return f"<localrpc.Server at {targets}: {self._progress.stage.value}>"

    def __del__(self) -> None:
        serving = self.__dict__.get("_serving")
        if serving is None or serving.inherited:
            return
        if self._progress.stage is Stage.NEW:
            run_later(serving.finish)
        elif self._progress.stage is Stage.STARTED:
            serving.orphan(partial(_stop, self._progress, grace=None))


class _Progress:
    """The stage of a server, in an object apart, so that its threads do not keep it alive."""

    def __init__(self) -> None:
        self.lock = _locks.Lock()
        self.life = Lifecycle()
        self.terminated = threading.Event()
        self.remote_side: RemoteSide | None = None
        self._events: list[threading.Event] = [self.terminated]

    @property
    def stage(self) -> Stage:
        return self.life.stage

    def remote(self, make: Callable[[], RemoteSide]) -> RemoteSide:
        """Return the remote part, created on first use."""
        with self.lock:
            if self.remote_side is None:
                side = make()
                if self.stage is Stage.STARTED:
                    side.start(self.ended)
                elif self.stage is not Stage.NEW:
                    side.stop(None)  # so that it refuses calls
                    return side
                self.life.add_side()
                self.remote_side = side
            return self.remote_side

    def event(self) -> threading.Event:
        """Return the event that is set once the server has stopped. Called with the lock held."""
        event = threading.Event()
        self._events.append(event)
        return event

    def pool_released(self) -> None:
        """Refuse new remote calls, because the pool is shutting down; those in progress go on."""
        with self.lock:
            remote = self.remote_side
        if remote is not None:
            remote.drain()

    def ended(self) -> None:
        """Note that one part has served its last call."""
        with self.lock:
            if not self.life.side_ended():
                return
            events, self._events = self._events, []
        for event in events:
            event.set()


def _stop(progress: _Progress, serving: Serving, grace: float | None) -> threading.Event:
    with progress.lock:
        stage = progress.stage
        if stage is Stage.STOPPED or serving.inherited:
            event = threading.Event()
            event.set()
            return event
        event = progress.event()
        progress.life.stop()
    remote = progress.remote_side
    drained = threading.Event()
    if grace is not None:

        def cancel_after_grace() -> None:
            drained.wait()
            # NaN means no grace, as in grpcio.
            if not _wait(event, 0 if grace != grace else grace):
                serving.cancel_all()

        # Once drained, the server and the program may end, and then no thread can start.
        threading.Thread(target=cancel_after_grace, name="localrpc-grace", daemon=True).start()
    if stage is Stage.STARTED:
        serving.drain()
    drained.set()
    if grace is None:
        serving.cancel_all()
    if remote is not None:
        remote.stop(grace)
    if grace is None:
        _wait(event, None)
    return event


def _wait(event: threading.Event, timeout: float | None) -> bool:
    """Wait as event.wait() does, but let the main thread handle signals in time."""
    until = None if timeout is None else monotonic() + timeout
    if until is not None and not until < monotonic() + LONGEST:
        until = None
    while True:
        left = None if until is None else max(until - monotonic(), 0)
        if event.wait(patience(left)):
            return True
        if left is not None and patience(left) == left:
            return False

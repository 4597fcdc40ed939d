"""grpc.aio.Server over local links."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

import grpc
from grpc import aio

from localrpc import _log
from localrpc.aio.context import ServicerContext
from localrpc.aio.handling import Handling
from localrpc.aio.instruments import instruments
from localrpc.aio.remote import RemoteSide
from localrpc.calls.handlers import HandlerTable, MethodHandler
from localrpc.calls.lifecycle import Lifecycle, Stage
from localrpc.drive import ports
from localrpc.drive.finalizers import run_later
from localrpc.drive.greenlets import refuse_greenlets
from localrpc.drive.loop_serving import LoopServing
from localrpc.options import parse_options, without_own

_logger = _log.logger("server")


class Server(aio.Server):
    """Serves any number of targets on one event loop, the one that runs at start()."""

    def __init__(
        self,
        migration_thread_pool: Executor | None,
        handlers: Sequence[grpc.GenericRpcHandler] | None,
        interceptors: Sequence[Any] | None,
        options: Sequence[tuple[str, Any]] | None,
        maximum_concurrent_rpcs: int | None,
        compression: grpc.Compression | None,
    ) -> None:
        refuse_greenlets()
        invalid = [
            each for each in interceptors or () if not isinstance(each, aio.ServerInterceptor)
        ]
        if invalid:
            raise ValueError(
                f"Interceptor must be ServerInterceptor,the following are invalid: {invalid}"
            )
        self._options = parse_options(tuple(options or ()))
        self._table = table = HandlerTable(handlers or ())
        self._life = Lifecycle()
        # Not for grpc: targets, whose servers are grpc.aio's and have its instruments.
        intercepted = instruments.before(interceptors or ())
        self._handling = Handling(
            self._table, intercepted, self._options.max_send, migration_thread_pool
        )
        self._ending, self._stopped = asyncio.Event(), asyncio.Event()
        self._local_ended = asyncio.Event()
        # Neither of these refers to this object.
        self._serving = LoopServing(
            self._options,
            maximum_concurrent_rpcs,
            ServicerContext,
            self._handling.accept,
            self._ending.set,
        )
        pairs = tuple(options or ())

        def make_remote() -> Any:
            return aio.server(
                migration_thread_pool,
                (table,),
                interceptors,
                without_own(pairs),
                maximum_concurrent_rpcs,
                compression,
            )

        self._remote = RemoteSide(make_remote, self._life.add_side)

    def add_generic_rpc_handlers(
        self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]
    ) -> None:
        self._table.add(generic_rpc_handlers)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, MethodHandler]
    ) -> None:
        self._table.register(service_name, method_handlers)

    def add_insecure_port(self, address: str) -> int:
        """Listen at a target. Return the port for tcp: and grpc:, otherwise 1, as grpcio does.

        Raises RuntimeError if it cannot listen there.
        """
        return ports.add_insecure(self._serving, address, self._remote.listen)

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        """Listen as add_insecure_port(): grpc: targets take any credentials, others local ones.

        Raises RuntimeError for other credentials, and if it cannot listen there; TypeError for
        None.
        """
        return ports.add_secure(self._serving, address, server_credentials, self._remote.listen)

    async def start(self) -> None:
        before = self._life.start()
        if before is Stage.STARTED:
            return  # as in grpc.aio
        if before is not Stage.NEW:
            raise aio.UsageError("Server not in ready state")
        loop = self._loop = asyncio.get_running_loop()
        self._handling.start(loop)
        self._serving.start(loop)
        await self._remote.start()
        # It does not hold this object; if the loop is closed by hand, it goes without a warning.
        stopping = self._stopping = loop.create_task(
            _stop_after(self._ending, self._serving, self._handling)
        )
        stopping._log_destroy_pending = False  # type: ignore[attr-defined]
        stopping.add_done_callback(partial(_note_end, self._life, self._local_ended, self._stopped))

    async def stop(self, grace: float | None) -> None:
        """Refuse new calls, wait up to `grace` seconds for the others, and end those that are left.

        Handlers have ended, `finally` blocks included, when it returns.
        """
        before = self._life.stop()
        if before is Stage.NEW:
            self._serving.finish()
            self._local_ended.set()
            if self._life.side_ended():
                self._stopped.set()
        if before is Stage.STOPPED:
            return
        if before is Stage.STARTED:
            self._serving.drain_calls()
        remote = asyncio.ensure_future(self._stop_remote(grace))
        try:
            if grace is not None:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._local_ended.wait(), grace)
            self._ending.set()
            await self._local_ended.wait()
        finally:
            self._ending.set()
            await remote

    async def _stop_remote(self, grace: float | None) -> None:
        if await self._remote.stop(grace) and self._life.side_ended():
            self._stopped.set()

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Wait until the server has stopped. Return True if `timeout` (seconds) passed first."""
        if self._life.stage is Stage.NEW:
            raise aio.UsageError("Server has not been started")
        try:
            await asyncio.wait_for(self._stopped.wait(), timeout)
        except asyncio.TimeoutError:
            return True
        return False

    def __del__(self) -> None:
        life = self.__dict__.get("_life")
        serving = self.__dict__.get("_serving")
        if life is None or serving is None:
            return  # its __init__ has failed
        if life.stage is Stage.NEW:
            run_later(serving.finish)
        elif life.stage is Stage.STARTED:
            loop = self._loop
            try:
                loop.call_soon_threadsafe(_stop_forgotten, serving, self._ending)
            except RuntimeError:  # the loop is closed, and runs no handler any more
                run_later(serving.finish)

    def __repr__(self) -> str:
        targets = ", ".join(self._serving.targets) or "no target"
        return f"<localrpc.aio.Server at {targets}: {self._life.stage.value}>"


def _stop_forgotten(serving: LoopServing, ending: asyncio.Event) -> None:
    serving.drain_calls()
    ending.set()


async def _stop_after(ending: asyncio.Event, serving: LoopServing, handling: Handling) -> None:
    """Wait until no call is left after stop(), or none may go on, and end everything."""
    try:
        await ending.wait()
    except asyncio.CancelledError:  # by asyncio.run(), which ends before stop()
        serving.drain_calls()
        await _end(serving, handling)
        raise
    await _end(serving, handling)


async def _end(serving: LoopServing, handling: Handling) -> None:
    serving.cancel_all()
    while handling.tasks:
        await asyncio.wait(handling.tasks)
    handling.close()
    serving.finish()


def _note_end(
    life: Lifecycle, local: asyncio.Event, stopped: asyncio.Event, _: asyncio.Task[None]
) -> None:
    local.set()
    if life.side_ended():
        stopped.set()

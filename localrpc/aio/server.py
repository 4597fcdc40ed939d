"""grpc.aio.Server over local links."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from enum import Enum
from typing import Any

import grpc
from grpc import aio

from localrpc import _log
from localrpc.address import Address
from localrpc.aio.context import ServicerContext
from localrpc.aio.handling import Handling
from localrpc.calls.handlers import HandlerTable, MethodHandler
from localrpc.calls.request import text
from localrpc.drive.loop_serving import LoopServing
from localrpc.errors import AddressError, ListenError
from localrpc.options import parse_options
from localrpc.transports import parse_target

_logger = _log.logger("server")


class _Stage(Enum):
    NEW = "not started"
    STARTED = "serving"
    STOPPING = "stopping"
    STOPPED = "stopped"


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
        invalid = [
            each for each in interceptors or () if not isinstance(each, aio.ServerInterceptor)
        ]
        if invalid:
            raise ValueError(
                f"Interceptor must be ServerInterceptor,the following are invalid: {invalid}"
            )
        self._options = parse_options(tuple(options or ()))
        self._table = HandlerTable(handlers or ())
        self._stage = _Stage.NEW
        self._handling = Handling(
            self._table, interceptors or (), self._options.max_send, migration_thread_pool
        )
        self._quiet, self._cut, self._stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()
        # Neither of these refers to this object.
        self._serving = LoopServing(
            self._options,
            maximum_concurrent_rpcs,
            ServicerContext,
            self._handling.accept,
            self._quiet.set,
        )

    def add_generic_rpc_handlers(
        self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]
    ) -> None:
        self._table.add(generic_rpc_handlers)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, MethodHandler]
    ) -> None:
        self._table.register(service_name, method_handlers)

    def add_insecure_port(self, address: str) -> int:
        """Listen at a target. Return the port for tcp:, otherwise 1. Raises RuntimeError."""
        return self._serving.listen(_parse(address))

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        """Listen as add_insecure_port(), with local credentials."""
        return self._serving.listen(_parse(address), security="local")

    async def start(self) -> None:
        if self._stage is not _Stage.NEW:
            raise aio.UsageError("Server not in ready state")
        loop = asyncio.get_running_loop()
        self._stage = _Stage.STARTED
        self._handling.start(loop)
        self._serving.start(loop)

    async def stop(self, grace: float | None) -> None:
        """Refuse new calls, wait up to `grace` seconds for the others, and end those that are left.

        Handlers have ended, `finally` blocks included, when it returns.
        """
        if self._stage is _Stage.NEW:
            self._stage = _Stage.STOPPED
            self._serving.finish()
            self._stopped.set()
            return
        if self._stage is _Stage.STARTED:
            self._stage = _Stage.STOPPING
            self._serving.drain_calls()
            # Its own task, because the one that waits for it may be cancelled.
            self._stopping = asyncio.ensure_future(self._stop())
        if grace is not None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), grace)
        self._cut.set()
        await self._stopped.wait()

    async def _stop(self) -> None:
        waits = [asyncio.ensure_future(each.wait()) for each in (self._quiet, self._cut)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        self._serving.cancel_all()
        current = asyncio.current_task()
        while tasks := self._handling.tasks - {current}:
            await asyncio.wait(tasks)
        self._handling.close()
        self._serving.finish()
        self._stage = _Stage.STOPPED
        self._stopped.set()

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Wait until the server has stopped. Return True if `timeout` (seconds) passed first."""
        if self._stage is _Stage.NEW:
            raise aio.UsageError("Server has not been started")
        try:
            await asyncio.wait_for(self._stopped.wait(), timeout)
        except asyncio.TimeoutError:
            return True
        return False

    def __repr__(self) -> str:
        targets = ", ".join(self._serving.targets) or "no target"
        return f"<localrpc.aio.Server at {targets}: {self._stage.value}>"


def _parse(address: str) -> Address:
    """Parse a target. Raises ListenError if it is malformed."""
    try:
        return parse_target(text(address))
    except AddressError as error:
        raise ListenError(address, str(error)) from error

"""The grpc.aio servers at a server's `grpc:` targets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from localrpc.address import Address
from localrpc.drive import remote
from localrpc.errors import ListenError


class RemoteSide:
    """Servers of grpc.aio, which `make` creates. For the loop's own thread.

    One listens at all targets that are added before start(). grpcio ignores ports that are added to
    a running server, so each later target gets a server of its own.
    """

    def __init__(self, make: Callable[[], Any], on_first: Callable[[], object]) -> None:
        """`on_first` is called with the first target."""
        self._make = make
        self._on_first = on_first
        self._is_used = self._is_over = False
        self._waiting: Any = None
        self._running: list[Any] = []
        self._started = self._stopping = False
        self._starting: set[asyncio.Task[None]] = set()

    def listen(self, address: Address, credentials: grpc.ServerCredentials | None) -> int:
        """Listen there; return the port that grpcio reports. Raises ListenError."""
        if self._stopping:
            raise ListenError(str(address), "the server has been stopped")
        server = self._waiting or self._make()
        port = remote.listen(server, address, credentials)
        if not self._is_used:
            self._is_used = True
            self._on_first()
        if self._started:
            self._running.append(server)
            task = asyncio.ensure_future(server.start())
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)
        else:
            self._waiting = server
        return port

    async def start(self) -> None:
        self._started = True
        server, self._waiting = self._waiting, None
        if server is not None:
            self._running.append(server)
            await server.start()

    async def stop(self, grace: float | None) -> bool:
        """Return when all calls have ended: True the first time, if there was any target."""
        self._stopping = True
        self._waiting = None
        if self._starting:
            await asyncio.wait(self._starting)
        await asyncio.gather(*(server.stop(grace) for server in self._running))
        first, self._is_over = self._is_used and not self._is_over, True
        return first

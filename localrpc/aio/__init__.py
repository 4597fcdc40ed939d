"""gRPC's asyncio API over local links."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

import grpc

from localrpc.aio.channel import Channel
from localrpc.aio.server import Server
from localrpc.transports import parse_target


def insecure_channel(
    target: str,
    options: Sequence[tuple[str, Any]] | None = None,
    compression: grpc.Compression | None = None,
    interceptors: Sequence[Any] | None = None,
) -> Channel:
    return Channel(parse_target(target), options)


def server(
    migration_thread_pool: Executor | None = None,
    handlers: Sequence[grpc.GenericRpcHandler] | None = None,
    interceptors: Sequence[Any] | None = None,
    options: Sequence[tuple[str, Any]] | None = None,
    maximum_concurrent_rpcs: int | None = None,
    compression: grpc.Compression | None = None,
) -> Server:
    return Server(
        migration_thread_pool, handlers, interceptors, options, maximum_concurrent_rpcs, compression
    )

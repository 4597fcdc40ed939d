"""gRPC's asyncio API over local links: channels and servers on an event loop.

    server = localrpc.aio.server()
    add_GreeterServicer_to_server(Greeter(), server)
    server.add_insecure_port("shm:greeter")
    await server.start()

    async with localrpc.aio.insecure_channel("shm:greeter") as channel:
        print((await GreeterStub(channel).Greet(Name(name="Ada"), timeout=1)).text)

Channels, calls, servers and contexts are subclasses of grpc.aio's own classes, and calls
fail with grpc.aio.AioRpcError. No thread but the loop's works on a call: the loop watches one
descriptor for each server, and for each connection of a channel.

Being built: interceptors of clients, grpc: targets and credentials are not there yet.
"""

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
    """Return a channel to `target`; it belongs to the loop that runs at its first call.

    `options` are those of localrpc.insecure_channel. `compression` is accepted and ignored.
    Raises AddressError for a malformed target, and NotImplementedError for `interceptors`.
    """
    if interceptors:
        raise NotImplementedError("interceptors of asyncio channels are not supported yet")
    return Channel(parse_target(target), options)


def server(
    migration_thread_pool: Executor | None = None,
    handlers: Sequence[grpc.GenericRpcHandler] | None = None,
    interceptors: Sequence[Any] | None = None,
    options: Sequence[tuple[str, Any]] | None = None,
    maximum_concurrent_rpcs: int | None = None,
    compression: grpc.Compression | None = None,
) -> Server:
    """Return a server, which serves on the loop that runs at start().

    Handlers that are plain functions or generators run on `migration_thread_pool`, the loop's
    own executor if it is None. `maximum_concurrent_rpcs` refuses further calls with
    RESOURCE_EXHAUSTED. `compression` is accepted and ignored.
    """
    return Server(
        migration_thread_pool, handlers, interceptors, options, maximum_concurrent_rpcs, compression
    )

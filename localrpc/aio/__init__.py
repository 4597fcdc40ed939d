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

Targets are those of localrpc.insecure_channel. The channel to a grpc: target is one of grpc.aio.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

import grpc
from grpc import aio

from localrpc._later import Later
from localrpc.aio.channel import Channel, open_channel
from localrpc.aio.server import Server
from localrpc.drive.spinning import EventLoop

__all__ = [
    "EventLoop",
    "fork_channel",
    "insecure_channel",
    "instrument",
    "secure_channel",
    "server",
    "spawn_channel",
    "stop_on_signals",
]

if TYPE_CHECKING:
    from localrpc.aio import children as _children
else:
    _children = Later("localrpc.aio.children")


def insecure_channel(
    target: str,
    options: Sequence[tuple[str, Any]] | None = None,
    compression: grpc.Compression | None = None,
    interceptors: Sequence[Any] | None = None,
) -> Channel:
    """Return a channel to `target`; it belongs to the loop that runs at its first call.

    `options` are those of localrpc.insecure_channel. `compression` matters at grpc: targets only.
    Raises AddressError for a malformed target, and ValueError for an object that is not one of
    grpc.aio's.
    """
    channel: Channel = open_channel(target, options, compression, interceptors)
    return channel


def secure_channel(
    target: str,
    credentials: grpc.ChannelCredentials,
    options: Sequence[tuple[str, Any]] | None = None,
    compression: grpc.Compression | None = None,
    interceptors: Sequence[Any] | None = None,
) -> Channel:
    """Return a channel as insecure_channel(), with credentials.

    grpc: targets take any credentials, others grpc.local_channel_credentials() alone. Raises
    ValueError for others, and TypeError for None.
    """
    if credentials is None:
        raise TypeError("secure_channel needs credentials; without them use insecure_channel")
    channel: Channel = open_channel(target, options, compression, interceptors, credentials)
    return channel


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
    RESOURCE_EXHAUSTED. `compression` matters at grpc: targets only.
    """
    return Server(
        migration_thread_pool, handlers, interceptors, options, maximum_concurrent_rpcs, compression
    )


def instrument(
    *,
    client: Callable[[], Sequence[aio.ClientInterceptor]] | None = None,
    server: Callable[[], aio.ServerInterceptor] | None = None,
) -> Callable[[], None]:
    """Intercept the calls of all channels and servers that are created from now on.

    For tracing libraries; localrpc.integrations uses it for OpenTelemetry and Sentry. `client` is
    called for each channel, and `server` for each server. What they return comes before the
    channel's or server's own interceptors, and before what was added earlier. Calls at grpc:
    targets are grpcio's, and are not intercepted.

    Returns a function to undo it, which may be called more than once. Thread-safe.
    """
    from localrpc.aio.instruments import instruments

    def around(interceptors: Sequence[Any]) -> Sequence[Any]:
        return (*client(), *interceptors) if client is not None else interceptors

    return instruments.add(around, server)


def stop_on_signals(server: aio.Server, grace: float | None = None) -> None:
    """Stop `server` on the first SIGTERM or SIGINT, with `grace` in seconds; at once on the second.

    A third signal has the action that it had before. Call it on the loop's thread, which has
    to be the main thread: otherwise it raises ValueError, or RuntimeError if no loop runs.
    """
    from localrpc.aio.signals import stop_on_signals as stop

    stop(server, grace)


def spawn_channel(
    argv: Sequence[str],
    options: Sequence[tuple[str, Any]] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    target: str = "pipe:",
    stderr: str = "inherit",
    grace: float = 5.0,
) -> _children.ChildChannel:
    """Start a program whose server, of either API, listens at "pipe:"; return a channel to it.

    As localrpc.spawn_channel; wait() and close() of the channel are coroutines. The grace of its
    close() is for the calls in progress, as in grpc.aio; then `grace` seconds are for the child.
    """
    from localrpc.aio.children import spawn_channel as spawn
    from localrpc.drive.children import manner

    return spawn(argv, options, env, cwd, manner(target, grace, stderr))


def fork_channel(
    setup: Callable[[aio.Server], Any],
    *,
    options: Sequence[tuple[str, Any]] | None = None,
    target: str = "pipe:",
    stderr: str = "inherit",
    grace: float = 5.0,
) -> _children.ChildChannel:
    """Fork, serve what `setup(server)` adds in the child, and return a channel to it.

    As localrpc.fork_channel. In the child, `setup`, a function or a coroutine function, is called
    with a new asyncio server, on a loop of its own.
    """
    from localrpc.aio.children import fork_channel as fork
    from localrpc.drive.children import manner

    return fork(setup, options, manner(target, grace, stderr))

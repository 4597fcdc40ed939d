"""gRPC's Python API over local IPC.

`insecure_channel` and `server` take grpc's arguments and return subclasses of
grpc's abstract classes, so stubs, servicers and interceptors work as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from importlib import import_module
from typing import TYPE_CHECKING, Any

from localrpc._later import Later

if TYPE_CHECKING:
    import grpc

    from localrpc import testing as testing
    from localrpc.sync import children as _children
    from localrpc.transports import base as _base
else:
    grpc = Later("grpc")
    _children = Later("localrpc.sync.children")
    _base = Later("localrpc.transports.base")

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "fork_channel",
    "insecure_channel",
    "instrument",
    "patch_grpc",
    "peer_credentials",
    "sd_notify",
    "secure_channel",
    "server",
    "spawn_channel",
    "stop_on_signals",
    "transports",
]


def __getattr__(name: str) -> Any:
    # Only tests need it, and it imports grpc.
    if name == "testing":
        return import_module("localrpc.testing")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def insecure_channel(
    target: str,
    options: Sequence[tuple[str, Any]] | None = None,
    compression: grpc.Compression | None = None,
) -> grpc.Channel:
    """A channel to `target`, such as shm:NAME or unix:PATH; connects with the first call.

    For grpc:TARGET it is grpcio's own. Raises AddressError (a ValueError) for a
    target that cannot be understood, RuntimeError where gevent or eventlet has
    replaced the threads of this process.
    """
    from localrpc.sync.channel import open_channel

    return open_channel(target, options, compression)


def secure_channel(
    target: str,
    credentials: grpc.ChannelCredentials,
    options: Sequence[tuple[str, Any]] | None = None,
    compression: grpc.Compression | None = None,
) -> grpc.Channel:
    """Like insecure_channel, with credentials: any at grpc:TARGET, elsewhere local ones.

    Raises ValueError for credentials that a local link cannot honour.
    """
    from localrpc.sync.channel import open_channel

    if credentials is None:
        raise TypeError("secure_channel needs credentials; without them use insecure_channel")
    return open_channel(target, options, compression, credentials=credentials)


def server(
    thread_pool: Executor,
    handlers: Sequence[grpc.GenericRpcHandler] | None = None,
    interceptors: Sequence[grpc.ServerInterceptor] | None = None,
    options: Iterable[tuple[str, Any]] | None = None,
    maximum_concurrent_rpcs: int | None = None,
    compression: grpc.Compression | None = None,
    xds: bool = False,
) -> grpc.Server:
    """A server whose handlers run on the threads of `thread_pool`.

    Raises RuntimeError where gevent or eventlet has replaced the threads of this process.
    """
    from localrpc.sync.server import Server

    return Server(
        thread_pool, handlers, interceptors, options, maximum_concurrent_rpcs, compression, xds=xds
    )


def spawn_channel(
    argv: Sequence[str],
    options: Sequence[tuple[str, Any]] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
) -> _children.ChildChannel:
    """Start a program whose server does `add_insecure_port("pipe:")`; a channel to it.

    The two processes share nothing but a pair of pipes. The channel's close()
    lets the child end, with SIGTERM if it does not by itself, and waits for it;
    a server that has no other target stops when its parent is gone. Raises
    OSError when the program cannot be started.
    """
    from localrpc.sync.children import spawn_channel as spawn

    return spawn(argv, options, env, cwd)


def fork_channel(
    setup: Callable[[grpc.Server], object],
    *,
    thread_pool: Callable[[], Executor] | None = None,
    options: Sequence[tuple[str, Any]] | None = None,
) -> _children.ChildChannel:
    """Fork, let the child serve what `setup(server)` adds to its server; a channel to it.

    `thread_pool` is called in the child. The child ends with the channel or the
    parent, without running the parent's exit handlers, and ignores SIGINT. As
    with every fork, locks that other threads held stay locked in the child.
    """
    from localrpc.sync.children import fork_channel as fork

    return fork(setup, thread_pool, options)


def instrument(
    *,
    channel: Callable[[grpc.Channel], grpc.Channel] | None = None,
    server: Callable[[], grpc.ServerInterceptor] | None = None,
) -> Callable[[], None]:
    """Put something around all channels and servers made from now on; returns what undoes it.

    `channel` is given what makes a channel's calls, and returns what is called in
    its place, as grpc.intercept_channel does; the channel itself stays as it is.
    `server` gives an interceptor that comes before those of the server. Neither
    sees calls of grpc: targets: grpc's own functions have made those. For tracing
    libraries; localrpc.integrations has it done for OpenTelemetry and Sentry.
    """
    from localrpc.sync import instrumentation

    return instrumentation.add(channel, server)


def patch_grpc() -> Callable[[], None]:
    """Let grpc.insecure_channel and grpc.secure_channel take localrpc's targets too.

    For libraries that make their channels themselves, grpc.experimental.unary_unary
    and its like among them. Targets that mean something to grpcio stay grpcio's:
    names, host:port, unix: and unix-abstract:. Returns what undoes it; a second
    call changes nothing. Call it after tracing libraries have patched grpc.
    """
    from localrpc.sync import patching

    return patching.patch()


def peer_credentials(context: grpc.ServicerContext) -> _base.PeerCredentials:
    """Process, user and group of a call's client, by the kernel's word; -1 if not known."""
    from localrpc.sync.context import credentials_of

    return credentials_of(context)


def sd_notify(state: str) -> bool:
    """Tell the service manager `state`, as sd_notify(3); False without one, or if it fails.

    A server with an fd: port says READY=1 and STOPPING=1 by itself.
    """
    from localrpc.drive.notify import notify

    return notify(state)


def stop_on_signals(server: grpc.Server, grace: float | None = None) -> None:
    """Stop `server` on the first SIGTERM or SIGINT, with `grace`; at once on the second."""
    from localrpc.sync.signals import stop_on_signals as install

    install(server, grace)


def transports() -> tuple[_base.Offer, ...]:
    """Every kind of target: whom it connects, how, what it knows of the peer, its limits now.

    What is not `available` on this machine says in `missing` why, and what to do.
    """
    from localrpc.transports import offers

    return offers()

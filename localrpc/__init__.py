"""gRPC's Python API over local IPC.

`insecure_channel` and `server` take grpc's arguments and return subclasses of
grpc's abstract classes, so stubs, servicers and interceptors work as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import grpc

    from localrpc.transports.base import PeerCredentials

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "insecure_channel",
    "peer_credentials",
    "secure_channel",
    "server",
    "stop_on_signals",
]


def insecure_channel(
    target: str,
    options: Sequence[tuple[str, Any]] | None = None,
    compression: grpc.Compression | None = None,
) -> grpc.Channel:
    """A channel to `target`, such as shm:NAME or unix:PATH; connects with the first call.

    For grpc:TARGET it is grpcio's own. Raises AddressError (a ValueError) for a
    target that cannot be understood.
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
    """A server whose handlers run on the threads of `thread_pool`."""
    from localrpc.sync.server import Server

    return Server(
        thread_pool, handlers, interceptors, options, maximum_concurrent_rpcs, compression, xds=xds
    )


def peer_credentials(context: grpc.ServicerContext) -> PeerCredentials:
    """Process, user and group of a call's client, by the kernel's word; -1 if not known."""
    from localrpc.sync.context import credentials_of

    return credentials_of(context)


def stop_on_signals(server: grpc.Server, grace: float | None = None) -> None:
    """Stop `server` on the first SIGTERM or SIGINT, with `grace`; at once on the second."""
    from localrpc.sync.signals import stop_on_signals as install

    install(server, grace)

"""What grpcio's channels and servers at `grpc:` targets are given, in each of its APIs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc

from localrpc.address import Address
from localrpc.errors import ListenError
from localrpc.options import without_own


def channel(
    api: Any,
    address: Address,
    credentials: grpc.ChannelCredentials | None,
    options: Iterable[tuple[str, Any]] | None,
    compression: grpc.Compression | None,
    *more: Any,
) -> Any:
    """Return a channel of grpcio itself, which behaves exactly as with grpcio.

    `api` is the module grpc or grpc.aio; `more` are the further arguments of its functions.
    """
    left = without_own(options)
    if credentials is None:
        return api.insecure_channel(address.body, left, compression, *more)
    return api.secure_channel(address.body, credentials, left, compression, *more)


def listen(server: Any, address: Address, credentials: grpc.ServerCredentials | None) -> int:
    """Add a target to a server of either API; return its port. Raises ListenError."""
    try:
        if credentials is None:
            return int(server.add_insecure_port(address.body))
        return int(server.add_secure_port(address.body, credentials))
    except RuntimeError as error:
        # grpcio's text repeats the target, and names where it logs its reasons.
        _, _, hint = str(error).partition("; ")
        reason = f"gRPC cannot listen there ({hint or error})"
        raise ListenError(str(address), reason) from error

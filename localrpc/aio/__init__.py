"""gRPC's asyncio API over local links."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc

from localrpc.aio.channel import Channel
from localrpc.transports import parse_target


def insecure_channel(
    target: str,
    options: Sequence[tuple[str, Any]] | None = None,
    compression: grpc.Compression | None = None,
    interceptors: Sequence[Any] | None = None,
) -> Channel:
    return Channel(parse_target(target), options)

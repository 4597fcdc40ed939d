"""Private classes of grpcio for a client's calls that programs use, under grpcio's names.

Programs name `grpc._channel._InactiveRpcError` in `except` and in isinstance().
"""

from __future__ import annotations

from typing import Any

import grpc


class _Nobody(grpc.RpcError, grpc.Call, grpc.Future):  # type: ignore[misc,type-arg]
    """Stands for a class that a later version of grpcio may have renamed."""


_channel: Any
try:
    from grpc import _channel
except ImportError:
    _channel = None

# `except grpc._channel._MultiThreadedRendezvous` catches localrpc's error as well.
InactiveRpcErrorBase: Any = getattr(_channel, "_InactiveRpcError", _Nobody)
RendezvousBase: Any = getattr(_channel, "_MultiThreadedRendezvous", _Nobody)


def finished_state(
    code: grpc.StatusCode, details: str, initial: Any, trailing: Any, debug: str | None
) -> Any:
    """Return `_state` of an error that a blocking call has raised."""
    state = _channel._RPCState((), initial, trailing, code, details)
    state.debug_error_string = debug
    return state

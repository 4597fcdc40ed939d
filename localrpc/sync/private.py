"""What grpcio keeps private of a client's calls and programs use all the same, under its names.

Programs name `grpc._channel._InactiveRpcError` in `except` and in isinstance().
"""

from __future__ import annotations

from typing import Any

import grpc


class _Nobody(grpc.RpcError, grpc.Call, grpc.Future):  # type: ignore[misc,type-arg]
    """In place of a class that some later grpcio may call something else."""


_channel: Any
try:
    from grpc import _channel
except ImportError:
    _channel = None

# What `except grpc._channel._MultiThreadedRendezvous` catches of grpcio's, it catches of ours.
InactiveRpcErrorBase: Any = getattr(_channel, "_InactiveRpcError", _Nobody)
RendezvousBase: Any = getattr(_channel, "_MultiThreadedRendezvous", _Nobody)


def finished_state(
    code: grpc.StatusCode, details: str, initial: Any, trailing: Any, debug: str | None
) -> Any:
    """`_state` of an error that a blocking call has raised."""
    state = _channel._RPCState((), initial, trailing, code, details)
    state.debug_error_string = debug
    return state

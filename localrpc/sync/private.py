"""What grpcio keeps private and programs use all the same, under grpcio's names.

Metrics, tracing and logging interceptors read `context._state` and
`context._rpc_event`; programs name `grpc._channel._InactiveRpcError` in `except`
and in isinstance(). Nothing here is made before somebody asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from localrpc._later import Later
from localrpc.drive.core import ffi, lib
from localrpc.metadata import Pairs

if TYPE_CHECKING:
    from localrpc.sync import context as _context
else:
    _context = Later("localrpc.sync.context")


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

_NAME_MAX = 8192
"""Bytes; a longer method name does not get into the core."""


def finished_state(
    code: grpc.StatusCode, details: str, initial: Any, trailing: Any, debug: str | None
) -> Any:
    """`_state` of an error that a blocking call has raised."""
    state = _channel._RPCState((), initial, trailing, code, details)
    state.debug_error_string = debug
    return state


class ServicerState:
    """`context._state`: grpcio's names for what a context knows. Safe from any thread."""

    def __init__(self, context: _context.ServicerContext) -> None:
        self._context = context

    @property
    def code(self) -> grpc.StatusCode | None:
        return self._context._code

    @code.setter
    def code(self, code: grpc.StatusCode) -> None:
        self._context.set_code(code)

    @property
    def details(self) -> bytes | None:
        return self._context._details

    @details.setter
    def details(self, details: str | bytes) -> None:
        self._context.set_details(details)  # type: ignore[arg-type]

    @property
    def trailing_metadata(self) -> Any:
        return self._context._trailing

    @trailing_metadata.setter
    def trailing_metadata(self, trailing_metadata: Any) -> None:
        self._context.set_trailing_metadata(trailing_metadata)

    @property
    def client(self) -> str:
        """One of "open", "closed" (the requests have ended, or the call) and "cancelled"."""
        context = self._context
        if context._gone:
            return "cancelled"
        if context._over:
            return "closed"
        if not context.is_active():
            return "cancelled"
        return "closed" if context._requests_ended else "open"

    @property
    def aborted(self) -> bool:
        return self._context._aborted

    @property
    def statused(self) -> bool:
        return self._context._statused

    @property
    def initial_metadata_allowed(self) -> bool:
        return self._context._initial_allowed

    @property
    def rpc_errors(self) -> list[Exception]:
        """Those that somebody still has."""
        return [error for known in self._context._errors if (error := known()) is not None]


class CallDetails(NamedTuple):
    method: bytes
    """Empty once the call is over."""
    host: bytes
    deadline: float
    """As time.time()."""


class RpcEvent(NamedTuple):
    """`context._rpc_event`, as far as it has a meaning without grpcio's core."""

    call_details: CallDetails
    invocation_metadata: Pairs


def method_of(engine: Any, call: int) -> bytes:
    room = ffi.new("char[]", _NAME_MAX)
    size = lib.lr_call_method(engine, call, room, _NAME_MAX)
    return b"" if size < 0 else bytes(ffi.buffer(room, size))

"""Private attributes of grpcio's servicer context that programs use, under grpcio's names.

Metrics, tracing and logging interceptors read `context._state` and `context._rpc_event`.
Each object here is created when it is first used.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import grpc

from localrpc.calls.answer import Stage, encoded
from localrpc.drive.served import ServedCall
from localrpc.metadata import Pairs


class ServicerState:
    """`context._state`: a context's state under grpcio's names. Thread-safe."""

    def __init__(self, call: ServedCall) -> None:
        self._call = call

    @property
    def code(self) -> grpc.StatusCode | None:
        return self._call.answer.code

    @code.setter
    def code(self, code: grpc.StatusCode) -> None:
        self._call.answer.code = code

    @property
    def details(self) -> bytes | None:
        return self._call.answer.details

    @details.setter
    def details(self, details: str | bytes) -> None:
        self._call.answer.details = encoded(details)

    @property
    def trailing_metadata(self) -> Any:
        return self._call.answer.trailing_metadata

    @trailing_metadata.setter
    def trailing_metadata(self, trailing_metadata: Any) -> None:
        self._call.answer.trailing_metadata = trailing_metadata

    @property
    def client(self) -> str:
        """One of "open", "closed" (the requests or the call have ended) and "cancelled"."""
        answer = self._call.answer
        if answer.stage is Stage.GONE:
            return "cancelled"
        if answer.over:
            return "closed"
        if answer.chosen or not self._call.is_alive():
            return "cancelled"
        return "closed" if answer.requests_ended else "open"

    @property
    def aborted(self) -> bool:
        return self._call.answer.aborted

    @property
    def statused(self) -> bool:
        return self._call.answer.chosen

    @property
    def initial_metadata_allowed(self) -> bool:
        return self._call.answer.initial_allowed

    @property
    def rpc_errors(self) -> list[Exception]:
        """The errors that are still referred to elsewhere."""
        return self._call.answer.errors()


class CallDetails(NamedTuple):
    method: bytes
    """The method's name; empty once the call is over."""
    host: bytes
    deadline: float
    """In seconds, as from time.time()."""


class RpcEvent(NamedTuple):
    """`context._rpc_event`: the parts that have a meaning without grpcio's core."""

    call_details: CallDetails
    invocation_metadata: Pairs

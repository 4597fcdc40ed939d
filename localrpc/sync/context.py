"""grpc.ServicerContext: one call as its handler sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from time import monotonic_ns, time
from typing import Any, NoReturn

import grpc

from localrpc.calls import texts
from localrpc.calls.answer import encoded
from localrpc.drive.core import NEVER
from localrpc.drive.served import ServedCall
from localrpc.sync import private_context

_INFINITE = 9223372036854775807.0
"""What time_remaining() is in grpcio for a call without a deadline."""


class ServicerContext(ServedCall, grpc.ServicerContext):
    """grpc's methods for a served call. Thread-safe, also after the end of the call."""

    # grpc.RpcContext

    def is_active(self) -> bool:
        answer = self._answer
        return (answer is None or not answer.chosen) and self.is_alive()

    def time_remaining(self) -> float:
        if self._deadline == NEVER:
            return _INFINITE - time()
        return max((self._deadline - monotonic_ns()) / 1e9, 0)

    def cancel(self) -> Any:
        self.stop(*texts.CANCELLED_BY_HANDLER)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return self.watch(callback)

    # grpc.ServicerContext

    def send_initial_metadata(self, initial_metadata: Sequence[Any] | None) -> None:
        answer = self.answer
        if not (answer.chosen or self.is_alive()):
            self.fail()
        result = answer.take_initial_metadata(initial_metadata)
        if isinstance(result, bytes):
            self.send_headers(result)
        else:
            self.do(result)

    def set_trailing_metadata(self, trailing_metadata: Iterable[Any]) -> None:
        self.answer.trailing_metadata = trailing_metadata

    def trailing_metadata(self) -> Any:
        return self.answer.trailing_metadata

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        self.answer.abort(code, details)
        raise Exception()

    def abort_with_status(self, status: grpc.Status) -> NoReturn:
        self.answer.trailing_metadata = status.trailing_metadata
        self.abort(status.code, status.details)

    def set_code(self, code: grpc.StatusCode) -> None:
        self.answer.code = code

    def code(self) -> grpc.StatusCode | None:
        return self.answer.code

    def set_details(self, details: str) -> None:
        self.answer.details = encoded(details)

    def details(self) -> bytes | None:
        """Return bytes, as grpcio does."""
        return self.answer.details

    # For interceptors that read private attributes of grpcio's contexts

    @property
    def _state(self) -> private_context.ServicerState:
        return private_context.ServicerState(self)

    @property
    def _rpc_event(self) -> private_context.RpcEvent:
        deadline = time() + self.time_remaining()
        details = private_context.CallDetails(self.method(), b"localhost", deadline)
        return private_context.RpcEvent(details, self.invocation_metadata())

    # For this package

    def fail(self) -> NoReturn:
        """Raise the error that tells a handler that its client has gone."""
        error = self.answer.new_error()
        try:
            raise error
        finally:
            del error  # or it would refer to itself, through this frame

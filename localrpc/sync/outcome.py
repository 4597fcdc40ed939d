"""How a finished call looks to the user: grpcio's error object, texts and repr.

The classes are named as in grpcio, because their names are part of every error's text.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

import grpc

from localrpc.calls.texts import Ending
from localrpc.metadata import Pairs
from localrpc.sync import private


def describe(
    name: str, code: grpc.StatusCode | None, details: str | None, debug: str | None
) -> str:
    """Return the repr() and str() of a call or an error."""
    if code is None:
        return f"<{name} object>"
    lines = [f"<{name} of RPC that terminated with:", f"\tstatus = {code}"]
    lines.append(f'\tdetails = "{details}"')
    if code is not grpc.StatusCode.OK:
        lines.append(f'\tdebug_error_string = "{debug}"')
    lines.append(">")
    return "\n".join(lines)


class _InactiveRpcError(private.InactiveRpcErrorBase):  # type: ignore[misc]
    """The error that a blocking call raises: a finished call and a finished future in one."""

    def __init__(
        self,
        code: grpc.StatusCode,
        details: str,
        initial_metadata: Pairs = (),
        trailing_metadata: Pairs = (),
        debug_error_string: str | None = None,
    ) -> None:
        # grpcio's own __init__ takes a state of its core.
        Exception.__init__(
            self, code, details, initial_metadata, trailing_metadata, debug_error_string
        )
        self._code = code
        self._details = details
        self._initial_metadata = initial_metadata
        self._trailing_metadata = trailing_metadata
        self._debug_error_string = debug_error_string

    def initial_metadata(self) -> Any:
        return self._initial_metadata

    def trailing_metadata(self) -> Any:
        return self._trailing_metadata

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def debug_error_string(self) -> str | None:
        return self._debug_error_string

    @property
    def _state(self) -> Any:
        return private.finished_state(
            self._code,
            self._details,
            self._initial_metadata,
            self._trailing_metadata,
            self._debug_error_string,
        )

    def __repr__(self) -> str:
        name = type(self).__name__
        return describe(name, self._code, self._details, self._debug_error_string)

    __str__ = __repr__

    def cancel(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> Any:
        return None

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return False

    def running(self) -> bool:
        return False

    def done(self) -> bool:
        return True

    def result(self, timeout: float | None = None) -> Any:
        try:
            raise self
        finally:
            del self  # or it would refer to itself, through this frame

    def exception(self, timeout: float | None = None) -> Exception:
        return self

    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        try:
            raise self
        except grpc.RpcError:
            return sys.exc_info()[2]
        finally:
            del self

    def add_done_callback(self, fn: Callable[[Any], None], timeout: float | None = None) -> None:
        fn(self)


def inactive(code: grpc.StatusCode, details: str, debug: str | None = None) -> _InactiveRpcError:
    return _InactiveRpcError(code, details, (), (), debug)


def raised(ending: Ending) -> _InactiveRpcError:
    """Return the error of a call that ends with `ending`."""
    return _InactiveRpcError(ending.code, ending.details, (), (), ending.debug)

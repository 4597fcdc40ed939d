"""The object for futures and response iterators: a grpc.Call, a grpc.Future and an error."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from time import monotonic_ns
from types import TracebackType
from typing import Any

import grpc

from localrpc.calls import messages, texts
from localrpc.calls.state import CallState
from localrpc.drive.call import ClientCall
from localrpc.drive.core import NEVER, limit_of
from localrpc.sync import private
from localrpc.sync.outcome import _InactiveRpcError, describe


class _MultiThreadedRendezvous(private.RendezvousBase):  # type: ignore[misc]
    """A call in flight or over; it is raised itself if it ends in an error.

    The thread that asks for a result reads it, so nothing here depends on the progress of another
    thread. Dropping the last reference cancels the call.
    """

    def __init__(self, call: ClientCall, deserialize: Callable[[bytes], Any] | None = None) -> None:
        # Not grpcio's own __init__, which takes a call of its core.
        self._call = call
        self._state = call.state
        self._messages = call.state.messages
        self._deserialize = deserialize
        self._timed = call.deadline != NEVER

    # grpc.RpcContext

    def is_active(self) -> bool:
        return not self.done()

    def time_remaining(self) -> Any:
        if not self._timed:
            return None
        return max((self._call.deadline - monotonic_ns()) / 1e9, 0)

    def cancel(self) -> bool:
        return self._call.end(*texts.LOCALLY_CANCELLED, cancelled=True)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return self._call.add_callback(callback)

    # grpc.Call

    def initial_metadata(self) -> Any:
        state = self._state
        self._call.wait(lambda: state.initial_metadata is not None or bool(state.messages))
        if state.initial_metadata is None:
            state.initial_metadata = ()  # a message came first, so there is none
        return state.initial_metadata

    def trailing_metadata(self) -> Any:
        self._end()
        return self._state.trailing_metadata

    def code(self) -> Any:
        self._end()
        return self._state.code

    def details(self) -> Any:
        self._end()
        return self._state.details

    def debug_error_string(self) -> str | None:
        self._end()
        return self._state.debug_error_string

    def _end(self, timeout: float | None = None) -> None:
        limit = NEVER if timeout is None else limit_of(timeout)
        if self._state.code is None and not self._call.wait(self._call.ended, limit):
            raise grpc.FutureTimeoutError()

    # grpc.Future

    def cancelled(self) -> bool:
        return self._state.cancelled

    def running(self) -> bool:
        return not self.done()

    def done(self) -> bool:
        if self._state.code is None:
            self._call.poll()
        return self._state.code is not None

    def result(self, timeout: float | None = None) -> Any:
        self._end(timeout)
        if self._state.code is grpc.StatusCode.OK:
            return self._state.response
        try:
            raise self._failure()
        finally:
            del self

    def exception(self, timeout: float | None = None) -> Exception | None:
        self._end(timeout)
        if self._state.code is grpc.StatusCode.OK:
            return None
        if self._state.cancelled:
            raise grpc.FutureCancelledError()
        return self

    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        self._end(timeout)
        if self._state.code is grpc.StatusCode.OK:
            return None
        try:
            raise self._failure()
        except grpc.FutureCancelledError:
            raise
        except grpc.RpcError:
            return sys.exc_info()[2]
        finally:
            del self

    def _failure(self) -> Exception:
        """Return the error for a frame that has deleted its `self` to raise: a frame in the
        traceback that refers to the call would leave it to the garbage collector."""
        return grpc.FutureCancelledError() if self._state.cancelled else self

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        if not self._call.add_callback(partial(fn, self)):
            fn(self)

    # The responses

    def __iter__(self) -> _MultiThreadedRendezvous:
        return self

    def __next__(self) -> Any:
        message: bytes | None = None
        if not self._timed:
            try:
                message = self._messages.popleft()
            except IndexError:
                pass  # no message has arrived yet
        if message is None:
            message = self._call.next_message()
            if message is None:
                if self._state.code is grpc.StatusCode.OK:
                    raise StopIteration
                try:
                    raise self
                finally:
                    del self  # see _failure()
        if self._deserialize is None:
            return message
        try:
            response = self._deserialize(message)
            if response is not None:
                return response
        except Exception:
            messages.unreadable()
        self._call.end(*texts.BAD_RESPONSE)
        try:
            raise self
        finally:
            del self

    def next(self) -> Any:
        return self.__next__()

    _next = next

    def __repr__(self) -> str:
        state = self._state
        name = type(self).__name__
        return describe(name, state.code, state.details, state.debug_error_string)

    __str__ = __repr__

    def __del__(self) -> None:
        # Also called for an object whose __init__ has failed.
        call = self.__dict__.get("_call")
        if call is not None:
            call.abandon()


def finished(state: CallState) -> Any:
    """Return the response of a call that has ended, or raise its error."""
    if state.code is grpc.StatusCode.OK:
        return state.response
    raise failure(state)


def failure(state: CallState) -> _InactiveRpcError:
    assert state.code is not None
    return _InactiveRpcError(
        state.code,
        state.details or "",
        state.initial_metadata or (),
        state.trailing_metadata or (),
        state.debug_error_string,
    )

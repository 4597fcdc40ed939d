"""What takes the place of a call if an interceptor answers it, or replaces its responses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator
from typing import TYPE_CHECKING, Any

import grpc
from grpc import aio

if TYPE_CHECKING:
    _UnaryUnaryCall = aio.UnaryUnaryCall[Any, Any]
    _UnaryStreamCall = aio.UnaryStreamCall[Any, Any]
    _StreamUnaryCall = aio.StreamUnaryCall[Any, Any]
    _StreamStreamCall = aio.StreamStreamCall[Any, Any]
else:
    _UnaryUnaryCall = aio.UnaryUnaryCall
    _UnaryStreamCall = aio.UnaryStreamCall
    _StreamUnaryCall = aio.StreamUnaryCall
    _StreamStreamCall = aio.StreamStreamCall


class _Answered:
    """A call that has ended with OK, because an interceptor has answered it."""

    def cancel(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def done(self) -> bool:
        return True

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        callback(self)

    def time_remaining(self) -> Any:
        return None

    async def initial_metadata(self) -> Any:
        return None  # as in grpc.aio

    async def trailing_metadata(self) -> Any:
        return None

    async def code(self) -> Any:
        return grpc.StatusCode.OK

    async def details(self) -> Any:
        return ""

    async def debug_error_string(self) -> Any:
        return None

    async def wait_for_connection(self) -> None:
        return


class _AnsweredUnary(_Answered):
    def __init__(self, response: Any) -> None:
        self._response = response

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._response
        yield  # a generator

    async def write(self, request: Any) -> None:
        raise asyncio.InvalidStateError("RPC already finished.")

    async def done_writing(self) -> None:
        return


class AnsweredUnaryUnaryCall(_AnsweredUnary, _UnaryUnaryCall):
    """A response in place of a call."""


class AnsweredStreamUnaryCall(_AnsweredUnary, _StreamUnaryCall):
    """A response in place of a call."""


class _Replaced:
    """A call whose responses an interceptor has replaced; everything else is that of the call."""

    def __init__(self, call: Any, responses: AsyncIterable[Any]) -> None:
        self._call: Any = _AnsweredUnary(None) if call is None else call
        self._responses = responses.__aiter__()

    def cancel(self) -> bool:
        return bool(self._call.cancel())

    def cancelled(self) -> bool:
        return bool(self._call.cancelled())

    def done(self) -> bool:
        return bool(self._call.done())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._call.add_done_callback(callback)

    def time_remaining(self) -> Any:
        return self._call.time_remaining()

    async def initial_metadata(self) -> Any:
        return await self._call.initial_metadata()

    async def trailing_metadata(self) -> Any:
        return await self._call.trailing_metadata()

    async def code(self) -> Any:
        return await self._call.code()

    async def details(self) -> Any:
        return await self._call.details()

    async def debug_error_string(self) -> Any:
        return await self._call.debug_error_string()

    async def wait_for_connection(self) -> None:
        await self._call.wait_for_connection()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._responses

    async def read(self) -> Any:
        try:
            return await self._responses.__anext__()
        except StopAsyncIteration:
            return aio.EOF

    async def write(self, request: Any) -> None:
        await self._call.write(request)

    async def done_writing(self) -> None:
        await self._call.done_writing()


class ReplacedUnaryStreamCall(_Replaced, _UnaryStreamCall):
    """Other responses in place of a call's."""


class ReplacedStreamStreamCall(_Replaced, _StreamStreamCall):
    """Other responses in place of a call's."""

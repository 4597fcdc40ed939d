"""The four kinds of call, with grpc.aio's methods."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable
from enum import Enum, auto
from functools import partial
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import grpc
from grpc import aio

from localrpc import _log
from localrpc.calls import messages, texts
from localrpc.drive.core import NEVER
from localrpc.drive.loop_call import LoopCall
from localrpc.metadata import Pairs

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

_logger = _log.logger("aio.call")

_FINISHED = "RPC already finished."
_HALF_CLOSED = 'RPC is half closed after calling "done_writing".'
NOT_MIXED = "The iterator and read/write APIs may not be mixed on a single RPC."

Serializer = Callable[[Any], bytes] | None
Deserializer = Callable[[bytes], Any] | None


class _Style(Enum):
    UNKNOWN = auto()
    ITERATOR = auto()
    READER_WRITER = auto()


def metadata_of(pairs: Pairs | None) -> aio.Metadata:
    return aio.Metadata(*((key, value) for key, value in pairs or ()))


def error_of(call: LoopCall) -> BaseException:
    """Return what an await of a call raises that has ended otherwise than with OK."""
    state = call.state
    if state.cancelled:
        return asyncio.CancelledError()
    assert state.code is not None
    return aio.AioRpcError(
        state.code,
        metadata_of(state.initial_metadata),
        metadata_of(state.trailing_metadata),
        details=state.details,
        debug_error_string=state.debug_error_string,
    )


class Call:
    """What all kinds have. Dropping the last reference cancels the call."""

    _call: LoopCall
    _one_response = True

    def __init__(self, call: LoopCall) -> None:
        self._call = call

    def __del__(self) -> None:
        try:
            call = self._call
        except AttributeError:
            return  # its __init__ has failed
        if call.state.code is None:
            _abandon(call)

    # grpc.aio.RpcContext

    def cancelled(self) -> bool:
        return self._call.state.cancelled

    def done(self) -> bool:
        return self._call.state.code is not None

    def time_remaining(self) -> float | None:
        deadline = self._call.deadline
        return None if deadline == NEVER else max((deadline - monotonic_ns()) / 1e9, 0)

    def cancel(self) -> bool:
        return self._call.end(*texts.LOCALLY_CANCELLED, cancelled=True)

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback` with the call once that is over, at once if it is.

        A call with one response then goes on when it is dropped, as a future does. One with a
        stream, which is of no use without a reader, is cancelled all the same.
        """
        if self._one_response:
            tell = partial(callback, self)
        else:
            tell = partial(_tell, callback, type(self), weakref.ref(self), self._call)
        if not self._call.add_callback(tell):
            callback(self)

    # grpc.aio.Call

    async def initial_metadata(self) -> aio.Metadata:
        state = self._call.state
        if state.initial_metadata is None:
            await self._call.until(
                lambda: state.initial_metadata is not None or bool(state.messages)
            )
        return metadata_of(state.initial_metadata)

    async def trailing_metadata(self) -> aio.Metadata:
        await self._end()
        return metadata_of(self._call.state.trailing_metadata)

    async def code(self) -> grpc.StatusCode:
        await self._end()
        code = self._call.state.code
        assert code is not None
        return code

    async def details(self) -> str:
        await self._end()
        return self._call.state.details or ""

    async def debug_error_string(self) -> str:
        await self._end()
        return self._call.state.debug_error_string or ""

    async def wait_for_connection(self) -> None:
        """Wait until the call has begun on a connection. Raises its error if it has failed."""
        call = self._call
        await call.until(lambda: call.session is not None or not call.running())
        if not call.running():
            self._raise_for_status()

    async def _end(self) -> None:
        call = self._call
        if call.state.code is None:
            await call.until(lambda: call.state.code is not None)

    def _raise_for_status(self) -> None:
        if self._call.state.code is not grpc.StatusCode.OK:
            raise error_of(self._call)

    def __repr__(self) -> str:
        state = self._call.state
        return (
            f"<{type(self).__name__} of RPC that {'is in flight' if state.code is None else ''}"
            f"{'' if state.code is None else 'terminated with:'}"
            f'\n\tstatus = {state.code}\n\tdetails = "{state.details or ""}"\n>'
        )

    __str__ = __repr__


def _tell(
    callback: Callable[[Any], None], kind: type[Call], ref: weakref.ref[Call], call: LoopCall
) -> None:
    """Call `callback` with the call's object or, if that is garbage, with another one."""
    front = ref()
    callback(kind(call) if front is None else front)


def _abandon(call: LoopCall) -> None:
    """End the call of an object that is garbage; a finalizer may run on any thread."""
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if running is call.loop:
        call.abandon()
    elif not call.loop.is_closed():
        try:
            call.loop.call_soon_threadsafe(call.abandon)
        except RuntimeError:
            return  # closed meanwhile


class _UnaryResponse(Call):
    def __await__(self) -> Generator[Any, None, Any]:
        call = self._call
        state = call.state
        while state.code is None:
            future = call.loop.create_future()
            call.waiters.append(future)
            try:
                yield from future
            except asyncio.CancelledError:
                call.forget(future)
                self.cancel()
                raise
        if state.code is grpc.StatusCode.OK:
            return state.response
        raise error_of(call)


class _StreamResponse(Call):
    _one_response = False
    _response_style = _Style.UNKNOWN
    _deserialize: Deserializer = None

    def __aiter__(self) -> AsyncIterator[Any]:
        self._use(_Style.ITERATOR)
        return self

    async def __anext__(self) -> Any:
        call = self._call
        if call.state.messages:
            message = call.pop_message()
            if self._deserialize is None:
                return message
            response, bad = messages.deserialize(message, self._deserialize)
            if not bad:
                return response
            call.end(*texts.BAD_RESPONSE)
            raise error_of(call)
        response = await _next(call, self._deserialize, None)
        if response is None:
            raise StopAsyncIteration
        return response

    async def read(self) -> Any:
        """Return the next message, or EOF, again and again. Raises the call's error at its end."""
        call = self._call
        if not call.state.messages and call.state.code is not None:
            self._raise_for_status()
            return aio.EOF
        self._use(_Style.READER_WRITER)
        return await _next(call, self._deserialize, aio.EOF)

    def _use(self, style: _Style) -> None:
        if self._response_style is _Style.UNKNOWN:
            self._response_style = style
        elif self._response_style is not style:
            raise aio.UsageError(NOT_MIXED)


async def _next(call: LoopCall, deserialize: Deserializer, at_end: Any) -> Any:
    """Return the next response, `at_end` after the last one. Raises the call's error."""
    state = call.state
    while not state.messages:
        if state.code is not None:
            if state.code is grpc.StatusCode.OK:
                return at_end
            raise error_of(call)
        future = call.change()
        try:
            await future
        except asyncio.CancelledError:
            call.forget(future)
            call.end(*texts.LOCALLY_CANCELLED, cancelled=True)
            raise
    response, bad = messages.deserialize(call.pop_message(), deserialize)
    if bad:
        call.end(*texts.BAD_RESPONSE)
        raise error_of(call)
    return response


class _StreamRequest(Call):
    _serialize: Serializer = None
    _limit = -1
    _request_style = _Style.READER_WRITER
    _done_writing = False
    _poller: asyncio.Task[None] | None = None

    def _write_from(self, requests: AsyncIterable[Any] | Iterable[Any] | None) -> None:
        if requests is not None:
            self._request_style = _Style.ITERATOR
            sender = _Sender(self._call, requests, self._serialize, self._limit)
            self._poller = self._call.loop.create_task(sender.run())
            self._call.add_callback(partial(_cancel_unless_current, self._poller))

    async def write(self, request: Any) -> None:
        if self._request_style is not _Style.READER_WRITER:
            raise aio.UsageError(NOT_MIXED)
        call = self._call
        if not call.running():
            raise asyncio.InvalidStateError(_FINISHED)
        if self._done_writing:
            raise asyncio.InvalidStateError(_HALF_CLOSED)
        try:
            sent = await send(call, request, self._serialize, self._limit)
        except asyncio.CancelledError:
            self.cancel()
            raise
        if not sent:
            await self._end()
            self._raise_for_status()

    async def done_writing(self) -> None:
        """Tell the server that no more requests follow. Idempotent."""
        if self._request_style is not _Style.READER_WRITER:
            raise aio.UsageError(NOT_MIXED)
        if self._done_writing or not self._call.running():
            return
        self._done_writing = True
        await _connected(self._call)
        await self._call.whole()
        self._call.half_close()


async def _connected(call: LoopCall) -> None:
    if call.session is None:
        await call.until(lambda: call.session is not None or not call.running())


async def send(call: LoopCall, request: Any, serialize: Serializer, limit: int) -> bool:
    """Send one request. Return False if the call has ended, here if it cannot be sent."""
    await _connected(call)
    message, refused = messages.serialize(request, serialize)
    if refused is None:
        refused = messages.check(message, limit)
    if refused is not None:
        call.end(refused.code, refused.details, debug=refused.debug)
        return False
    return await call.send(message)


class _Sender:
    """Sends the requests of an iterator. It holds the call's state, and not its API object."""

    def __init__(
        self,
        call: LoopCall,
        requests: AsyncIterable[Any] | Iterable[Any],
        serialize: Serializer,
        limit: int,
    ) -> None:
        self._call = call
        self._requests = requests
        self._serialize = serialize
        self._limit = limit

    async def run(self) -> None:
        call = self._call
        try:
            if isinstance(self._requests, AsyncIterable):
                async for request in self._requests:
                    if not await send(call, request, self._serialize, self._limit):
                        return
            else:
                for request in self._requests:
                    if not await send(call, request, self._serialize, self._limit):
                        return
            await _connected(call)
            call.half_close()
        except asyncio.CancelledError:
            call.end(*texts.LOCALLY_CANCELLED, cancelled=True)
            raise
        except Exception:
            _logger.exception("Exception iterating requests!")
            call.end(*texts.BAD_ITERATOR)


def _cancel_unless_current(task: asyncio.Task[None]) -> None:
    try:
        current = asyncio.current_task()
    except RuntimeError:
        current = None
    if task is not current:
        task.cancel()


class UnaryUnaryCall(_UnaryResponse, _UnaryUnaryCall):
    """One request, one response."""


class UnaryStreamCall(_StreamResponse, _UnaryStreamCall):
    """One request, a stream of responses."""


class StreamUnaryCall(_StreamRequest, _UnaryResponse, _StreamUnaryCall):
    """A stream of requests, one response."""


class StreamStreamCall(_StreamRequest, _StreamResponse, _StreamStreamCall):
    """Streams both ways."""

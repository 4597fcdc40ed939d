"""Brings an incoming call to its handler and the answer back, on an event loop."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Coroutine, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

import grpc
from grpc import aio

from localrpc import _log, status
from localrpc.aio import migration
from localrpc.aio.beginning import Beginner, beginner
from localrpc.aio.context import ServicerContext
from localrpc.calls import texts
from localrpc.calls.handlers import CallDetails, HandlerTable, behaviour_of
from localrpc.calls.incoming import LONG_NAME, refusal
from localrpc.drive.core import lib
from localrpc.drive.loop_serving import INLINE, LoopServed

_logger = _log.logger("server")
_KINDS = (
    inspect.iscoroutinefunction,
    inspect.isasyncgenfunction,
)
_ENDS = (asyncio.CancelledError, KeyboardInterrupt, SystemExit)
"""They end a handler, and with it its call; the last two stop the loop as well."""


def _is_async(behaviour: Any) -> bool:
    """Return True if a handler runs on the loop; otherwise it runs on the pool."""
    call = getattr(behaviour, "__call__", None)  # noqa: B004
    return any(is_kind(behaviour) or is_kind(call) for is_kind in _KINDS)


class _Entry:
    """A method that has been called, with its handler if every call of it has the same."""

    __slots__ = ("behaviour", "deserialize", "handler", "is_async", "name", "plain", "serialize")

    def __init__(self, name: str, handler: Any) -> None:
        self.name = name
        self.handler = handler
        self.behaviour: Any = None
        self.is_async = False
        self.plain = False
        """True for a coroutine with one request and one response."""
        if handler is not None:
            self.behaviour = behaviour_of(handler)
            self.is_async = _is_async(self.behaviour)
            self.plain = self.is_async and not (
                handler.request_streaming or handler.response_streaming
            )
            self.deserialize = handler.request_deserializer
            self.serialize = handler.response_serializer


class Handling:
    """Finds and runs the handlers of one server."""

    def __init__(
        self,
        table: HandlerTable,
        interceptors: Sequence[aio.ServerInterceptor],
        max_send: int,
        pool: Executor | None,
    ) -> None:
        self._table = table
        self._interceptors = tuple(interceptors)
        self._limit = max_send
        self._pool = pool
        self._entries: list[_Entry] = []
        self._beginner: Beginner | None = None
        self.tasks: set[asyncio.Task[Any]] = set()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Be ready for calls on `loop`."""
        self._loop = loop
        self._beginner = beginner(loop)

    def accept(self, call: LoopServed, method: int, flags: int, data: bytes | None) -> None:
        """Begin a new call."""
        assert isinstance(call, ServicerContext)
        entry = self._entries[method] if method >= 0 else self._learn(call)
        if entry is None:
            call.refuse(*texts.NAMELESS)
            return
        serving = call._serving
        head = call._head
        if len(head) > serving.metadata_limits.light or len(entry.name) >= LONG_NAME:
            agent = call._connection.hello.agent if call._connection else ""
            refused = refusal(serving.metadata_limits, entry.name, agent, head)
            if refused is not None:
                call.refuse(*refused)
                return
        call._limit = self._limit
        handler = entry.handler
        if flags & lib.LR_F_REFUSED:
            call.refuse(*texts.TOO_MANY_CALLS)
            return
        if data is not None and entry.plain:
            self._begin(call, self._serve_plain(call, entry, data))
            return
        if data is not None:
            call.take_request(data)
        if handler is not None and entry.is_async:
            self._begin(call, self._serve(call, entry))
        else:
            self._begin(call, self._find_and_serve(call, entry))

    def _begin(self, call: ServicerContext, coroutine: Coroutine[Any, Any, None]) -> None:
        assert self._beginner is not None
        task = self._beginner.begin(coroutine)
        if task is None:
            return
        call.task = task
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        if call.gone:  # while it began
            task.cancel()

    def _learn(self, call: ServicerContext) -> _Entry | None:
        raw = call.method()
        if not raw:
            return None
        name = raw.decode("utf-8", "replace")
        handler = self._table.by_name(name)
        if handler is None or self._interceptors:
            return _Entry(name, None)
        entry = _Entry(name, handler)
        self._entries.append(entry)
        lib.lr_intern(call._serving.engine, raw, len(raw), len(self._entries) - 1)
        return entry

    async def _find_and_serve(self, call: ServicerContext, entry: _Entry) -> None:
        try:
            if entry.handler is None:
                handler = await self._find(entry.name, call)
                if handler is None:
                    call.refuse(*texts.NO_METHOD)
                    return
                entry = _Entry(entry.name, handler)
        except _ENDS:
            call.lose(*texts.CANCELLED_BY_HANDLER)
            raise
        except Exception as error:
            self._complain(call, entry, error)
            return
        await self._serve(call, entry)

    async def _find(self, name: str, call: ServicerContext) -> Any:
        details = CallDetails(name, call.invocation_metadata())
        return await self._intercept(0, name, details)

    async def _intercept(self, index: int, name: str, details: grpc.HandlerCallDetails) -> Any:
        if index == len(self._interceptors):
            return self._table.look_up(details, name)
        following = partial(self._intercept, index + 1, name)
        return await self._interceptors[index].intercept_service(following, details)

    async def _serve(self, call: ServicerContext, entry: _Entry) -> None:
        """Serve one call, from its request to its status."""
        handler = entry.handler
        try:
            call._deserialize = handler.request_deserializer
            call._serialize = handler.response_serializer
            argument: Any = None
            if not handler.request_streaming:
                argument = await call.read()
                if argument is aio.EOF:
                    call.refuse(*texts.requires_one_request(entry.name))
                    return
            if not entry.is_async:
                await self._serve_on_pool(call, entry, argument)
                return
            if argument is None:
                argument = _Requests(call)
            if handler.response_streaming:
                await self._stream(call, entry.behaviour, argument)
            else:
                await self._answer(call, await entry.behaviour(argument, call))
        except _ENDS:
            # The client has gone, or the server stops; or the handler itself has raised it.
            call.lose(*texts.CANCELLED_BY_HANDLER)
            raise
        except Exception as error:
            self._complain(call, entry, error)

    async def _serve_plain(self, call: ServicerContext, entry: _Entry, data: bytes) -> None:
        """Serve a call whose only request has come with it, and is answered by a coroutine."""
        call._serialize = entry.serialize
        try:
            request = data if entry.deserialize is None else entry.deserialize(data)
        except Exception:
            _logger.exception("Exception deserializing message!")
            request = None
        if request is None:
            call.refuse(*texts.UNREADABLE)
            return
        try:
            response = await entry.behaviour(request, call)
            if call._answer is None and not call.over:
                message = call.encode(response)
                if message is not None:
                    if len(message) <= INLINE:
                        call.reply(message)
                        return
                    if await call.send(message):
                        call.finish(None)
                return
            await self._answer(call, response)
        except _ENDS:
            call.lose(*texts.CANCELLED_BY_HANDLER)
            raise
        except Exception as error:
            self._complain(call, entry, error)

    async def _serve_on_pool(self, call: ServicerContext, entry: _Entry, argument: Any) -> None:
        streams = entry.handler.response_streaming
        response = await migration.respond(
            self._loop, self._pool, call, entry.behaviour, argument, streams=streams
        )
        if not streams:
            await self._answer(call, response)
        elif not call.over:
            call.finish(None)

    async def _answer(self, call: ServicerContext, response: Any) -> None:
        if call.over:
            return
        message = call.encode(response)
        if message is None:
            return
        plain = call._answer is None
        if len(message) <= INLINE:
            if plain:
                call.reply(message)
            else:
                call.finish(message)
        elif (plain or call.answer.code in (None, grpc.StatusCode.OK)) and await call.send(message):
            call.finish(None)
        else:
            call.finish(message)

    async def _stream(self, call: ServicerContext, behaviour: Any, argument: Any) -> None:
        responses = behaviour(argument, call)
        if isinstance(responses, Awaitable):  # it writes to the context itself
            await responses
        else:
            try:
                async for response in responses:
                    if call.over:
                        break
                    await call.write(response)
            finally:
                close = getattr(responses, "aclose", None)
                if close is not None:
                    await close()
        if not call.over:
            call.finish(None)

    def _complain(self, call: ServicerContext, entry: _Entry, error: Exception) -> None:
        """End the call for an exception that its handler raised."""
        if isinstance(error, aio.AbortError) and call.over:
            return
        if call._answer is not None and call.answer.aborted:
            call.refuse(*texts.ABORTED)
            return
        if call.over:
            return
        _logger.exception(
            "Unexpected [%s] raised by servicer method [%s]", type(error).__name__, entry.name
        )
        call.refuse(status.UNKNOWN, f"Unexpected {type(error)}: {error}")

    def close(self) -> None:
        if self._beginner is not None:
            self._beginner.close()


class _Requests:
    """The requests that a handler of a request stream iterates over."""

    __slots__ = ("_call",)

    def __init__(self, call: ServicerContext) -> None:
        self._call = call

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        request = await self._call.read()
        if request is aio.EOF:
            raise StopAsyncIteration
        return request

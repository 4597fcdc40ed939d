"""A server with one method of each kind, and channels to it, of either API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent import futures
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc
from grpc import aio

import localrpc
import localrpc.aio

PATIENCE = 30.0


class Handlers(grpc.GenericRpcHandler):
    """The methods of /house/, as coroutines and asynchronous generators."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ended: list[str] = []
        """The names of handlers that were cancelled, once their `finally` blocks have run."""

    async def echo(self, request: bytes, context: Any) -> bytes:
        return request

    async def headers(self, request: bytes, context: Any) -> bytes:
        pairs = [pair for pair in context.invocation_metadata() if pair[0] != "user-agent"]
        await context.send_initial_metadata(pairs)
        context.set_trailing_metadata([*pairs, ("peer", context.peer())])
        return request

    async def later(self, request: bytes, context: Any) -> bytes:
        await asyncio.sleep(0)
        return request

    async def stuck(self, request: bytes, context: Any) -> bytes:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.append("stuck")
        return request

    async def abort(self, request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, "not here", (("why", "none"),))
        return request

    async def broken(self, request: bytes, context: Any) -> bytes:
        raise ValueError("by intent")

    async def count(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number

    async def endless(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 1000
        finally:
            self.ended.append("endless")

    async def length(self, requests: Any, context: Any) -> bytes:
        total = 0
        async for request in requests:
            total += len(request)
        return b"%d" % total

    async def back(self, requests: Any, context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    async def chat(self, requests: Any, context: Any) -> None:
        while (request := await context.read()) is not aio.EOF:
            await context.write(request)

    def plain(self, request: bytes, context: Any) -> bytes:
        """On the migration pool."""
        context.set_trailing_metadata((("pool", "yes"),))
        return request

    def plain_count(self, request: bytes, context: Any) -> Iterator[bytes]:
        yield from (b"%d" % number for number in range(int(request)))

    def plain_back(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        yield from requests

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        name = (handler_call_details.method or "").rpartition("/")[2]
        kinds: dict[str, Callable[..., Any]] = {
            "count": grpc.unary_stream_rpc_method_handler,
            "endless": grpc.unary_stream_rpc_method_handler,
            "plain_count": grpc.unary_stream_rpc_method_handler,
            "length": grpc.stream_unary_rpc_method_handler,
            "back": grpc.stream_stream_rpc_method_handler,
            "chat": grpc.stream_stream_rpc_method_handler,
            "plain_back": grpc.stream_stream_rpc_method_handler,
        }
        behaviour = getattr(self, name, None)
        if behaviour is None or name == "service":
            return None
        return kinds.get(name, grpc.unary_unary_rpc_method_handler)(behaviour)


@asynccontextmanager
async def serving(target: str, **arguments: Any) -> AsyncIterator[Handlers]:
    """An asyncio server at `target`."""
    handlers = Handlers()
    with futures.ThreadPoolExecutor(4) as pool:
        server = localrpc.aio.server(pool, handlers=(handlers,), **arguments)
        server.add_insecure_port(target)
        await server.start()
        try:
            yield handlers
        finally:
            await server.stop(None)


@asynccontextmanager
async def house(target: str) -> AsyncIterator[tuple[Handlers, Any]]:
    """An asyncio server at `target`, and an asyncio channel to it."""
    async with serving(target) as handlers, localrpc.aio.insecure_channel(target) as channel:
        yield handlers, channel


class SyncHandlers(grpc.GenericRpcHandler):
    """Some of the same methods, as functions and generators."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        name = (handler_call_details.method or "").rpartition("/")[2]
        if name == "echo":
            return grpc.unary_unary_rpc_method_handler(lambda request, context: request)
        if name == "count":
            return grpc.unary_stream_rpc_method_handler(
                lambda request, context: (b"%d" % n for n in range(int(request)))
            )
        if name == "length":
            return grpc.stream_unary_rpc_method_handler(
                lambda requests, context: b"%d" % sum(map(len, requests))
            )
        if name == "back":
            return grpc.stream_stream_rpc_method_handler(lambda requests, context: requests)
        return None


@contextmanager
def sync_serving(target: str) -> Iterator[None]:
    """A synchronous server at `target`."""
    with futures.ThreadPoolExecutor(4) as pool:
        server = localrpc.server(pool, handlers=(SyncHandlers(),))
        server.add_insecure_port(target)
        server.start()
        yield
        server.stop(None)

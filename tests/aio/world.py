"""A server and channels of grpc.aio or localrpc.aio, and observations of them as plain data."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc import aio

PATIENCE = 20.0

_METHODS = {
    "uu": grpc.unary_unary_rpc_method_handler,
    "us": grpc.unary_stream_rpc_method_handler,
    "su": grpc.stream_unary_rpc_method_handler,
    "ss": grpc.stream_stream_rpc_method_handler,
}


class World:
    """One implementation, `module`, and an address of its own."""

    def __init__(self, module: str, target: str) -> None:
        self.api: Any = importlib.import_module(module)
        self.target = target
        self.noted: list[Any] = []
        """What handlers have seen, in order."""

    @asynccontextmanager
    async def serving(self, **handlers: Any) -> AsyncIterator[Any]:
        """A server whose methods are `uu=`, `us=`, `su=` and `ss=`, and a channel to it."""
        arguments = handlers.pop("server", {})
        options = handlers.pop("channel", {})
        methods: dict[str, Any] = {
            name: _METHODS[name[:2]](handler) for name, handler in handlers.items()
        }
        server = self.api.server(**arguments)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("w", methods),))
        server.add_insecure_port(self.target)
        await server.start()
        try:
            async with self.api.insecure_channel(self.target, **options) as channel:
                yield Methods(channel, server)
        finally:
            await server.stop(None)


class Methods:
    """The channel's methods by their handlers' names."""

    def __init__(self, channel: Any, server: Any) -> None:
        self.channel = channel
        self.server = server

    def __getattr__(self, name: str) -> Any:
        kinds = {
            "uu": self.channel.unary_unary,
            "us": self.channel.unary_stream,
            "su": self.channel.stream_unary,
            "ss": self.channel.stream_stream,
        }
        return kinds[name[:2]](f"/w/{name}")


def plain(value: Any) -> Any:
    if isinstance(value, grpc.StatusCode):
        return value.name
    if isinstance(value, aio.Metadata):
        return sorted((key, each) for key, each in value if key != "user-agent")
    if isinstance(value, aio.AioRpcError):
        return [
            "AioRpcError",
            value.code().name,
            value.details(),
            plain(value.initial_metadata()),
            plain(value.trailing_metadata()),
        ]
    if isinstance(value, BaseException):
        return [type(value).__name__, str(value)]
    if value is aio.EOF:
        return "EOF"
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if value is None or isinstance(value, (bool, int, str, bytes)):
        return value
    if isinstance(value, float):
        return "float"
    kinds = [
        name
        for name in (
            *("UnaryUnaryCall", "UnaryStreamCall", "StreamUnaryCall", "StreamStreamCall"),
            *("Call", "RpcContext", "ServicerContext", "Channel", "Server"),
        )
        if isinstance(value, getattr(aio, name))
    ]
    return kinds or type(value).__name__


async def outcome(awaitable: Any) -> Any:
    """What an await returns or raises, within reason."""
    try:
        return plain(await asyncio.wait_for(awaitable, PATIENCE))
    except (Exception, asyncio.CancelledError) as error:
        return plain(error)


async def ended(call: Any) -> dict[str, Any]:
    """What a call says after its end."""
    return {
        "code": await outcome(call.code()),
        "details": await outcome(call.details()),
        "initial": await outcome(call.initial_metadata()),
        "trailing": await outcome(call.trailing_metadata()),
        "done": call.done(),
        "cancelled": call.cancelled(),
    }


Scenario = Callable[[World], Any]

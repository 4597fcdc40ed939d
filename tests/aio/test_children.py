"""Channels to child processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import grpc
import pytest
from grpc import aio

import localrpc.aio
from tests.rpc.test_children import SERVE

from .house import PATIENCE, Handlers


def test_a_child_is_started_called_and_ended() -> None:
    async def run() -> None:
        async with localrpc.aio.spawn_channel([sys.executable, "-c", SERVE]) as channel:
            pid = await channel.unary_unary("/s/pid")(b"", timeout=PATIENCE)
            assert int(pid) == channel.pid
        assert await channel.wait(PATIENCE) in (0, -signal.SIGTERM)

    asyncio.run(run())


def test_a_forked_child_serves_coroutines_until_its_channel_is_closed() -> None:
    async def ended(request: bytes, context: Any) -> bytes:
        os._exit(7)

    async def setup(server: aio.Server) -> None:
        await asyncio.sleep(0)
        server.add_generic_rpc_handlers((Handlers(),))
        handler: Any = grpc.unary_unary_rpc_method_handler(ended)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("end", {"now": handler}),)
        )

    async def run() -> None:
        async with localrpc.aio.fork_channel(setup) as channel:
            assert await channel.unary_unary("/house/echo")(b"x", timeout=PATIENCE) == b"x"
            with pytest.raises(aio.AioRpcError) as caught:
                await channel.unary_unary("/end/now")(b"", timeout=PATIENCE)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert await channel.wait(PATIENCE) == 7

    asyncio.run(run())

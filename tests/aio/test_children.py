"""Channels to child processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

import localrpc.aio
from tests.gc.heap import uncollected
from tests.rpc.house import await_that
from tests.rpc.test_children import SERVE

from .house import PATIENCE, Handlers


def test_a_child_is_started_called_and_ended() -> None:
    async def run() -> None:
        async with localrpc.aio.spawn_channel([sys.executable, "-c", SERVE]) as channel:
            pid = await channel.unary_unary("/s/pid")(b"", timeout=PATIENCE)
            assert int(pid) == channel.pid
        assert await channel.wait(PATIENCE) in (0, -signal.SIGTERM)

    asyncio.run(run())


@pytest.mark.parametrize("called", [True, False], ids=["called", "uncalled"])
def test_a_channel_without_references_ends_its_child(called: bool) -> None:
    def setup(server: aio.Server) -> None:
        server.add_generic_rpc_handlers((Handlers(),))

    async def run() -> int:
        channel = localrpc.aio.fork_channel(setup)
        if called:
            await channel.unary_unary("/house/echo")(b"", timeout=PATIENCE)
        return channel.pid

    with uncollected():
        pid = asyncio.run(run())
        await_that(lambda: not Path(f"/proc/{pid}").exists(), "the child to be waited for")


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

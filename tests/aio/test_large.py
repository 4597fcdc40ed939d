"""Large messages that several tasks send, or that are interrupted half-way: a call sends one whole
message after the other, and what cannot be finished ends that call alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc import aio

import localrpc.aio
from tests.peers.journal import Pen
from tests.peers.processes import Peer

from .house import PATIENCE, Handlers
from .scenarios import become

ANY_SIZE = (("grpc.max_receive_message_length", -1),)
LARGE = 6 << 20
"""Bytes: more than a window, so that it is not sent at once."""
US: Any = grpc.unary_stream_rpc_method_handler


@asynccontextmanager
async def serving(target: str, **behaviours: Any) -> AsyncIterator[Any]:
    """A server with the house's methods and these streams, and a channel to it."""
    streams = {name: US(behaviour) for name, behaviour in behaviours.items()}
    generic = grpc.method_handlers_generic_handler("s", streams)
    server = localrpc.aio.server(handlers=(generic, Handlers()), options=ANY_SIZE)
    server.add_insecure_port(target)
    await server.start()
    async with localrpc.aio.insecure_channel(target, ANY_SIZE) as channel:
        await channel.channel_ready()
        yield channel
        # The connection has not suffered.
        assert channel.get_state() is grpc.ChannelConnectivity.READY
        assert await channel.unary_unary("/house/echo")(b"x", timeout=PATIENCE) == b"x"
    await server.stop(None)


def messages() -> list[bytes]:
    return [bytes([number]) * (LARGE + number) for number in range(4)]


def test_tasks_of_a_handler_write_one_after_the_other(distinct_target: str) -> None:
    async def together(request: bytes, context: Any) -> None:
        await asyncio.gather(*(context.write(message) for message in messages()))

    async def run() -> None:
        async with serving(distinct_target, together=together) as channel:
            call = channel.unary_stream("/s/together")(b"")
            assert sorted([each async for each in call]) == messages()

    asyncio.run(run())


def test_tasks_of_a_client_write_one_after_the_other(distinct_target: str) -> None:
    async def run() -> None:
        async with serving(distinct_target) as channel:
            call = channel.stream_stream("/house/back")()
            writing = asyncio.gather(*(call.write(message) for message in messages()))
            await asyncio.sleep(0)
            ending = asyncio.ensure_future(call.done_writing())
            assert sorted([await call.read() for _ in messages()]) == messages()
            assert await call.read() is aio.EOF
            await writing
            await ending

    asyncio.run(run())


def test_a_write_that_is_cancelled_before_it_began_is_forgotten(distinct_target: str) -> None:
    """It waits for credit: the second of two messages that are not read stays in the window."""

    told: list[str] = []

    async def impatient(request: bytes, context: Any) -> None:
        for _ in range(2):
            await context.write(bytes(LARGE // 2))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(context.write(bytes(LARGE)), 0.05)
        await context.write(b"another")
        told.append("another")

    async def run() -> None:
        async with serving(distinct_target, impatient=impatient) as channel:
            call = channel.unary_stream("/s/impatient")(b"")
            await become(lambda: bool(told))
            for _ in range(2):
                assert await call.read() == bytes(LARGE // 2)
            assert await call.read() == b"another"
            assert await call.read() is aio.EOF

    asyncio.run(run())


def follow(target: str, pen: Pen) -> None:
    """A client's process: it is stopped, and told half of a message."""

    async def run() -> None:
        async with localrpc.aio.insecure_channel(target, ANY_SIZE) as channel:
            call = channel.unary_stream("/s/impatient")(b"")
            assert await call.read() == b"first"
            pen.say("begun")
            pen.say("ended", (await call.code()).name)
            echo = channel.unary_unary("/house/echo")
            pen.say("echoed", await echo(b"x", timeout=PATIENCE))

    asyncio.run(run())


def test_a_write_that_is_cancelled_half_way_ends_its_call_alone(
    distinct_two_process_target: str,
) -> None:
    target = distinct_two_process_target
    stopped = threading.Event()
    told: list[str] = []

    async def impatient(request: bytes, context: Any) -> None:
        await context.write(b"first")
        await asyncio.to_thread(stopped.wait, PATIENCE)
        try:
            await asyncio.wait_for(context.write(bytes(LARGE // 2)), 0.05)
            told.append("whole")
        finally:
            told.append("left")

    async def run() -> None:
        async with serving(target, impatient=impatient):
            with Peer(follow, target) as client:
                await asyncio.to_thread(client.hear, "begun")
                client.stop()
                stopped.set()
                await become(lambda: "left" in told)
                client.go_on()
                ended = await asyncio.to_thread(client.hear, "ended")
                echoed = await asyncio.to_thread(client.hear, "echoed")
                # What a disk or the kernel has room for is sent at once.
                whole = "whole" in told
                assert not whole or target.startswith(("file:", "tcp:"))
                assert (ended[1], echoed[1]) == ("OK" if whole else "CANCELLED", b"x")

    asyncio.run(run())


def test_a_status_follows_the_message_that_another_task_writes(distinct_target: str) -> None:
    async def abort(request: bytes, context: Any) -> None:
        writing = asyncio.ensure_future(context.write(bytes(LARGE)))
        context.keep = writing
        await asyncio.sleep(0)
        await context.abort(grpc.StatusCode.DATA_LOSS, "after it")

    async def run() -> None:
        async with serving(distinct_target, abort=abort) as channel:
            call = channel.unary_stream("/s/abort")(b"", timeout=PATIENCE)
            assert await call.read() == bytes(LARGE)
            with pytest.raises(aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.DATA_LOSS
            assert caught.value.details() == "after it"

    asyncio.run(run())

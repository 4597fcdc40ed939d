"""localrpc.aio.EventLoop: what is its own. The suites pass on it in test_loops.py."""

from __future__ import annotations

import asyncio
import gc
import os
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc
import pytest

import localrpc.aio
from localrpc.aio import EventLoop

AWAY = 0.4
"""Seconds without a call: far more than a loop looks for frames."""


async def echo(request: bytes, context: Any) -> bytes:
    return request


async def hang(request: bytes, context: Any) -> bytes:
    await asyncio.Event().wait()
    return request


def handlers() -> grpc.GenericRpcHandler:
    behaviours: dict[str, Any] = {"echo": echo, "hang": hang}
    methods: dict[str, Any] = {
        name: grpc.unary_unary_rpc_method_handler(each) for name, each in behaviours.items()
    }
    return grpc.method_handlers_generic_handler("s", methods)


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    loop = EventLoop()
    yield loop
    loop.close()


async def pair(target: str) -> tuple[Any, Any]:
    server = localrpc.aio.server(handlers=(handlers(),))
    server.add_insecure_port(target)
    await server.start()
    return server, localrpc.aio.insecure_channel(target)


def run(loop: EventLoop, target: str, work: Callable[[Any], Awaitable[None]]) -> None:
    async def main() -> None:
        server, channel = await pair(target)
        await work(channel)
        await channel.close()
        await server.stop(None)

    loop.run_until_complete(main())


def test_it_sleeps_once_no_frames_come(loop: EventLoop, distinct_target: str) -> None:
    used: list[float] = []

    async def work(channel: Any) -> None:
        call = channel.unary_unary("/s/echo")
        for _ in range(50):
            assert await call(b"x") == b"x"
        before = time.thread_time()
        await asyncio.sleep(AWAY)
        used.append(time.thread_time() - before)
        assert await call(b"y") == b"y"

    run(loop, distinct_target, work)
    assert used[0] < AWAY / 4


def test_other_descriptors_and_threads_are_heard_between_calls(
    loop: EventLoop, distinct_target: str
) -> None:
    ours, theirs = os.pipe()

    async def work(channel: Any) -> None:
        call = channel.unary_unary("/s/echo")
        heard = asyncio.Event()
        loop.add_reader(ours, heard.set)
        calling = True

        async def go_on() -> None:
            while calling:
                assert await call(b"x") == b"x"

        task = asyncio.ensure_future(go_on())
        await call(b"x")
        os.write(theirs, b"x")
        await asyncio.wait_for(heard.wait(), 30)
        loop.remove_reader(ours)
        assert await asyncio.wait_for(loop.run_in_executor(None, int), 30) == 0
        await asyncio.wait_for(asyncio.sleep(0.01), 30)
        calling = False
        await task

    run(loop, distinct_target, work)
    os.close(ours)
    os.close(theirs)


def test_a_deadline_ends_a_call_while_the_loop_looks(loop: EventLoop, distinct_target: str) -> None:
    async def work(channel: Any) -> None:
        await channel.unary_unary("/s/echo")(b"x")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/s/hang")(b"x", timeout=0.05)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    run(loop, distinct_target, work)


def test_it_forgets_what_was_closed_or_dropped(loop: EventLoop, distinct_target: str) -> None:
    async def work(channel: Any) -> None:
        assert await channel.unary_unary("/s/echo")(b"x") == b"x"

    run(loop, distinct_target, work)
    assert not loop._spinner._watched

    async def drop() -> None:
        server, channel = await pair(distinct_target)
        assert await channel.unary_unary("/s/echo")(b"x") == b"x"
        assert loop._spinner._watched
        await server.stop(None)
        del server, channel

    loop.run_until_complete(drop())
    gc.collect()
    loop.run_until_complete(asyncio.sleep(0))
    assert not loop._spinner._watched


def test_a_closed_loop_with_open_channels_watches_nothing(distinct_target: str) -> None:
    loop = EventLoop()
    loop.run_until_complete(pair(distinct_target))
    loop.close()
    assert not loop._spinner._watched


def test_a_closed_loop_waits_for_no_collector() -> None:
    gc.disable()
    try:
        loop = EventLoop()
        loop.close()
        kept = weakref.ref(loop)
        del loop
        assert kept() is None
    finally:
        gc.enable()

"""Deadlines, cancellation, stopping, and what is left afterwards."""

from __future__ import annotations

import asyncio
import gc
import os
import weakref
from typing import Any

import grpc
import pytest
from grpc import aio

import localrpc.aio
from localrpc.drive.loop_call import LoopCall

from .house import PATIENCE, house, serving


async def become(condition: Any) -> None:
    """Wait until `condition()` is true."""
    async with asyncio.timeout(PATIENCE) if hasattr(asyncio, "timeout") else _Untimed():
        while not condition():
            await asyncio.sleep(0.001)


class _Untimed:
    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *exc_info: object) -> None:
        return None


def test_a_deadline_ends_the_call_on_both_sides(distinct_target: str) -> None:
    async def run() -> None:
        async with house(distinct_target) as (handlers, channel):
            with pytest.raises(aio.AioRpcError) as caught:
                await channel.unary_unary("/house/stuck")(b"", timeout=0.2)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            if handlers.begun.is_set():
                await become(lambda: handlers.ended == ["stuck"])

    asyncio.run(run())


def test_cancelling_the_task_cancels_the_handler(distinct_target: str) -> None:
    async def run() -> None:
        async with house(distinct_target) as (handlers, channel):
            call = channel.unary_unary("/house/stuck")(b"")

            async def wait() -> None:
                await call

            task = asyncio.ensure_future(wait())
            await handlers.begun.wait()
            task.cancel("a reason")
            with pytest.raises(asyncio.CancelledError):
                await task
            assert call.cancelled()
            assert await call.code() is grpc.StatusCode.CANCELLED
            await become(lambda: handlers.ended == ["stuck"])

    asyncio.run(run())


def test_a_call_dropped_after_one_read_is_cancelled(distinct_target: str) -> None:
    async def run() -> None:
        async with house(distinct_target) as (handlers, channel):
            call = channel.unary_stream("/house/endless")(b"")
            assert await call.read() == b"x" * 1000
            del call
            await become(lambda: handlers.ended == ["endless"])

    asyncio.run(run())


def test_a_slow_reader_holds_back_the_writer(distinct_target: str) -> None:
    async def run() -> None:
        async with house(distinct_target) as (_, channel):
            call = channel.unary_stream("/house/endless")(b"")
            assert await call.read() == b"x" * 1000
            for _ in range(50):
                # The loop, and the server on it, go on meanwhile.
                assert await channel.unary_unary("/house/echo")(b"y") == b"y"
            assert len(call._call.state.messages) < 1000
            call.cancel()

    asyncio.run(run())


def test_stop_waits_for_calls_within_its_grace(distinct_target: str) -> None:
    async def run() -> None:
        async with localrpc.aio.insecure_channel(distinct_target) as channel:
            async with serving(distinct_target) as handlers:
                call = channel.unary_unary("/house/stuck")(b"")
                await handlers.begun.wait()
            assert handlers.ended == ["stuck"]  # before stop() returned
            assert await call.code() is grpc.StatusCode.UNAVAILABLE

    asyncio.run(run())


def test_closing_the_channel_ends_its_calls(one_target: str) -> None:
    async def run() -> None:
        async with serving(one_target) as handlers:
            channel = localrpc.aio.insecure_channel(one_target)
            call = channel.unary_unary("/house/stuck")(b"")
            await handlers.begun.wait()
            await channel.close()
            assert await call.code() is grpc.StatusCode.CANCELLED
            with pytest.raises(aio.UsageError):
                channel.unary_unary("/house/echo")(b"")

    asyncio.run(run())


def test_nothing_is_left_and_nothing_waits_for_the_collector(one_target: str) -> None:
    """Tasks, descriptors and calls, with the collector switched off."""
    calls: weakref.WeakSet[LoopCall] = weakref.WeakSet()

    async def rounds(channel: Any) -> None:
        echo, count = channel.unary_unary("/house/echo"), channel.unary_stream("/house/count")
        for number in range(200):
            unary = echo(b"x")
            calls.add(unary._call)
            await unary
            stream = count(b"3")
            calls.add(stream._call)
            if number % 2:
                await stream.read()
            else:
                assert [each async for each in stream]

    async def run() -> None:
        async with house(one_target) as (_, channel):
            await rounds(channel)
        del channel

    async def check() -> None:
        await run()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(check())
    gc.collect()
    gc.disable()
    try:
        before = len(os.listdir("/proc/self/fd"))
        asyncio.run(check())
        assert not calls
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        gc.enable()


def test_one_channel_in_two_loops_is_refused_and_a_closed_loop_forgotten(one_target: str) -> None:
    channel = localrpc.aio.insecure_channel(one_target)

    async def call() -> None:
        async with serving(one_target):
            assert await channel.unary_unary("/house/echo")(b"x", timeout=PATIENCE) == b"x"

    asyncio.run(call())
    asyncio.run(call())
    other = asyncio.new_event_loop()
    try:
        other.run_until_complete(call())

        async def refused() -> None:
            with pytest.raises(RuntimeError, match=r"belongs to .*cannot be used in"):
                channel.unary_unary("/house/echo")(b"x")

        asyncio.run(refused())
    finally:
        other.run_until_complete(channel.close())
        other.close()


async def current_task(request: bytes, context: Any) -> bytes:
    """Its task is the same before and after it suspends, and a timeout reaches it."""
    before = asyncio.current_task()
    assert before is not None
    assert before in asyncio.all_tasks()
    await asyncio.sleep(0)
    assert asyncio.current_task() is before
    return request


def test_a_handler_has_one_task_from_its_first_line(one_target: str) -> None:
    handler = grpc.method_handlers_generic_handler(
        "tasks", {"current": grpc.unary_unary_rpc_method_handler(current_task)}
    )

    async def run() -> None:
        server = localrpc.aio.server(handlers=(handler,))
        server.add_insecure_port(one_target)
        await server.start()
        async with localrpc.aio.insecure_channel(one_target) as channel:
            current = channel.unary_unary("/tasks/current")
            assert await asyncio.gather(*(current(b"x") for _ in range(20))) == [b"x"] * 20
        await server.stop(None)

    asyncio.run(run())

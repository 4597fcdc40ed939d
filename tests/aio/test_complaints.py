"""What users of grpc.aio have complained of in public, as what they expected instead."""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc import aio

import localrpc.aio
from tests.skips import only_where

from .house import PATIENCE, Handlers, house, serving
from .scenarios import become

MEBIBYTE = 1 << 20


@only_where(sys.version_info >= (3, 11), "Python 3.10 loses the message itself")
def test_the_message_of_a_cancellation_survives_with_and_without_interceptors(
    one_target: str,
) -> None:
    """grpc/grpc#43502."""

    class Passing(aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            call = await continuation(details, request)
            await call
            return call

    async def cancelled(method: Any, handlers: Handlers) -> Any:
        async def wait() -> None:
            await method(b"")

        handlers.begun.clear()
        task = asyncio.ensure_future(wait())
        await handlers.begun.wait()
        task.cancel("a reason")
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        return caught.value.args

    async def run() -> None:
        async with serving(one_target) as handlers:
            for interceptors in ((), (Passing(),)):
                async with localrpc.aio.insecure_channel(
                    one_target, interceptors=interceptors
                ) as channel:
                    stuck = channel.unary_unary("/house/stuck")
                    assert await cancelled(stuck, handlers) == ("a reason",)

    asyncio.run(run())


def test_loops_in_several_threads_do_not_disturb_each_other(
    distinct_target: str, caplog: pytest.LogCaptureFixture
) -> None:
    """grpc/grpc#25364, #42357: one descriptor was shared by all loops of a process."""
    failures: list[BaseException] = []
    ready, over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with serving(distinct_target):
            ready.set()
            await asyncio.to_thread(over.wait)

    async def call() -> None:
        async with localrpc.aio.insecure_channel(distinct_target) as channel:
            echo = channel.unary_unary("/house/echo")
            for number in range(100):
                assert await echo(b"%d" % number, timeout=PATIENCE) == b"%d" % number

    def run(work: Any) -> None:
        try:
            asyncio.run(work())
        except BaseException as error:
            failures.append(error)

    server = threading.Thread(target=run, args=(serve,))
    server.start()
    ready.wait(PATIENCE)
    clients = [threading.Thread(target=run, args=(call,)) for _ in range(4)]
    with caplog.at_level(logging.WARNING):
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        over.set()
        server.join()
    assert not failures
    assert not [record for record in caplog.records if record.name == "asyncio"]


def test_a_stub_made_before_the_loop_runs_is_of_use_in_it(one_target: str) -> None:
    """grpc/grpc#32480."""
    channel = localrpc.aio.insecure_channel(one_target)
    echo = channel.unary_unary("/house/echo")

    async def run() -> None:
        async with serving(one_target):
            assert await echo(b"x", timeout=PATIENCE) == b"x"
            await channel.close()

    asyncio.run(run())


def test_a_handler_may_swallow_its_cancellation(distinct_target: str) -> None:
    """grpc/grpc#43360: it leaked, and so did each read that was cancelled."""
    swallowed = 0

    async def stubborn(request: bytes, context: Any) -> AsyncIterator[bytes]:
        nonlocal swallowed
        yield b"one"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            swallowed += 1

    method: Any = grpc.unary_stream_rpc_method_handler(stubborn)
    handler = grpc.method_handlers_generic_handler("s", {"stubborn": method})

    async def run() -> None:
        server = localrpc.aio.server(handlers=(handler,))
        server.add_insecure_port(distinct_target)
        await server.start()
        async with localrpc.aio.insecure_channel(distinct_target) as channel:
            stubborn = channel.unary_stream("/s/stubborn")
            for _ in range(20):
                call = stubborn(b"")
                assert await call.read() == b"one"
                call.cancel()
            await become(lambda: swallowed == 20)
        await server.stop(None)

    asyncio.run(run())


def test_cancelled_reads_leave_memory_flat(one_target: str) -> None:
    """grpc/grpc#43360."""

    async def cancelled_reads(channel: Any, count: int) -> None:
        for _ in range(count):
            call = channel.unary_unary("/house/stuck")(b"x" * 1000)
            reading = asyncio.ensure_future(call.code())
            await asyncio.sleep(0)
            reading.cancel()
            call.cancel()

    async def run() -> None:
        async with house(one_target) as (handlers, channel):
            await cancelled_reads(channel, 500)
            gc.collect()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            await cancelled_reads(channel, 5000)
            await become(lambda: len(asyncio.all_tasks()) < 10)
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            assert (after - before) * 1024 < 20 * MEBIBYTE
            assert handlers is not None

    asyncio.run(run())


def test_asyncio_timeout_around_any_await(distinct_target: str) -> None:
    async def expires(awaitable: Any) -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(awaitable, 0.05)

    async def run() -> None:
        async with house(distinct_target) as (_, channel):
            stuck, chat = channel.unary_unary("/house/stuck"), channel.stream_stream("/house/chat")
            await expires(stuck(b"").code())
            await expires(stuck(b"").initial_metadata())

            async def answer() -> None:
                await stuck(b"")

            await expires(answer())
            await expires(chat().read())
            assert await channel.unary_unary("/house/echo")(b"x") == b"x"

    asyncio.run(run())


def test_a_write_ahead_of_a_reader_that_does_not_read_waits(distinct_target: str) -> None:
    async def never(requests: Any, context: Any) -> bytes:
        await asyncio.Event().wait()
        return b""

    method: Any = grpc.stream_unary_rpc_method_handler(never)
    handler = grpc.method_handlers_generic_handler("s", {"never": method})

    async def run() -> None:
        server = localrpc.aio.server(handlers=(handler,))
        server.add_insecure_port(distinct_target)
        await server.start()
        async with localrpc.aio.insecure_channel(distinct_target) as channel:
            call = channel.stream_unary("/s/never")()
            written = 0

            async def write() -> None:
                nonlocal written
                while True:
                    await call.write(b"x" * 10_000)
                    written += 1

            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(write(), 1)
            assert written * 10_000 < 32 * MEBIBYTE
            call.cancel()
        await server.stop(None)

    asyncio.run(run())

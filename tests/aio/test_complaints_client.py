"""As test_complaints.py: what users of grpc.aio have complained of, about clients."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
import weakref
from typing import Any

import grpc
import pytest
from grpc import aio

import localrpc.aio
from tests.rpc.house import await_that

from .house import PATIENCE, house, serving


class Finishing(aio.UnaryUnaryClientInterceptor):
    """Awaits the call, and returns its response."""

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        call = await continuation(details, request)
        return await call


class Failing(aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        raise ValueError("by intent")


class Listening(aio.UnaryUnaryClientInterceptor):
    """As OpenTelemetry's: it wants to know when the call is over."""

    def __init__(self) -> None:
        self.over: list[Any] = []

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        call = await continuation(details, request)
        call.add_done_callback(self.over.append)
        return call


def test_callbacks_of_a_call_that_an_interceptor_has_finished(one_target: str) -> None:
    """grpc/grpc#40998: NotImplementedError."""

    async def run() -> None:
        listening = Listening()
        over: list[Any] = []
        async with (
            serving(one_target),
            localrpc.aio.insecure_channel(
                one_target, interceptors=(listening, Finishing())
            ) as channel,
        ):
            call = channel.unary_unary("/house/echo")(b"x")
            call.add_done_callback(over.append)
            assert await call == b"x"
            await asyncio.sleep(0)
            assert len(listening.over) == 1
            assert over == [call]

    asyncio.run(run())


def test_a_call_whose_interceptor_raises_is_done(one_target: str) -> None:
    """grpc/grpc#40964: done() raised the exception, and callbacks were not called."""

    async def run() -> None:
        over: list[Any] = []
        async with (
            serving(one_target),
            localrpc.aio.insecure_channel(one_target, interceptors=(Failing(),)) as channel,
        ):
            call = channel.unary_unary("/house/echo")(b"x")
            call.add_done_callback(over.append)
            with pytest.raises(ValueError, match="by intent"):
                await call
            await asyncio.sleep(0)
            assert call.done()
            assert not call.cancelled()
            assert not call.cancel()
            assert over == [call]

    asyncio.run(run())


def test_a_finalizer_waits_for_no_lock_of_logging(one_target: str) -> None:
    """grpc/grpc#43421: collected while another thread configured logging, a call deadlocked."""
    held, go_on = threading.Event(), threading.Event()

    lock: Any = vars(logging)["_lock"]

    def hold() -> None:
        with lock:
            held.set()
            go_on.wait(PATIENCE)

    async def run() -> None:
        async with house(one_target) as (_, channel):
            call = channel.unary_stream("/house/endless")(b"")
            assert await call.read()
            cycle = [call]
            cycle.append(cycle)
            gone = weakref.ref(call)
            thread = threading.Thread(target=hold)
            thread.start()
            held.wait(PATIENCE)
            del call, cycle
            gc.collect()
            assert gone() is None
            go_on.set()
            thread.join()

    asyncio.run(run())


@pytest.mark.parametrize("count", [1, 20])
def test_close_leaves_no_connection_though_readers_were_just_cancelled(
    distinct_target: str, count: int
) -> None:
    """grpc/grpc#42125."""
    open_before = 0

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    async def run() -> None:
        nonlocal open_before
        async with serving(distinct_target):
            warm = localrpc.aio.insecure_channel(distinct_target)
            await warm.unary_unary("/house/echo")(b"x")
            await warm.close()
            open_before = descriptors()
            channel = localrpc.aio.insecure_channel(distinct_target)
            calls = [channel.stream_stream("/house/back")() for _ in range(count)]
            for call in calls:
                await call.write(b"x")
                assert await call.read() == b"x"
            readers = [asyncio.ensure_future(call.read()) for call in calls]
            await asyncio.sleep(0)
            for reader in readers:
                reader.cancel()
            await channel.close(grace=0)
            del channel, calls, call, readers, reader
            await asyncio.to_thread(
                await_that, lambda: descriptors() <= open_before, "the connection to be closed"
            )

    asyncio.run(run())


def test_an_end_by_the_server_calls_no_exception_handler(one_target: str) -> None:
    """grpc/grpc#29518: the task that read the request iterator ended with an exception."""
    complaints: list[Any] = []

    async def requests() -> Any:
        for _ in range(10):
            yield b"x"
            await asyncio.sleep(0)
        await asyncio.Event().wait()

    async def broken(requests: Any, context: Any) -> Any:
        async for request in requests:
            yield request
            raise ValueError("by intent")

    method: Any = grpc.stream_stream_rpc_method_handler(broken)
    handler = grpc.method_handlers_generic_handler("s", {"broken": method})

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: complaints.append(context))
        server = localrpc.aio.server(handlers=(handler,))
        server.add_insecure_port(one_target)
        await server.start()
        async with localrpc.aio.insecure_channel(one_target) as channel:
            call = channel.stream_stream("/s/broken")(requests())
            assert await call.read() == b"x"
            with pytest.raises(aio.AioRpcError):
                await call.read()
            assert await call.code() is grpc.StatusCode.UNKNOWN
            del call
        await server.stop(None)
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(run())
    assert complaints == []


def test_a_long_stream_through_an_interceptor_keeps_nothing(one_target: str) -> None:
    """grpc/grpc#25449: each message left an object until the end of the call."""

    class Passing(aio.StreamStreamClientInterceptor):
        async def intercept_stream_stream(
            self, continuation: Any, details: Any, requests: Any
        ) -> Any:
            return await continuation(details, requests)

    async def run() -> None:
        async with (
            serving(one_target),
            localrpc.aio.insecure_channel(one_target, interceptors=(Passing(),)) as channel,
        ):
            call = channel.stream_stream("/house/chat")()
            counts = []
            for _ in range(3):
                for _ in range(200):
                    await call.write(b"x")
                    assert await call.read() == b"x"
                gc.collect()
                counts.append(len(gc.get_objects()))
            assert counts[2] - counts[1] < 100
            await call.done_writing()

    asyncio.run(run())

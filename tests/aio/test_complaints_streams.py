"""As test_complaints.py: what users of grpc.aio have complained of, about streams."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from grpc import aio

import localrpc.aio

from .house import PATIENCE, house, serving
from .scenarios import become


class Passing(aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(details, request)


@pytest.mark.parametrize("interceptors", [(), (Passing(),), (Passing(), Passing())])
def test_reads_after_the_end_return_eof(distinct_target: str, interceptors: Any) -> None:
    """grpc/grpc#36581: behind an interceptor, StopAsyncIteration instead."""

    async def run() -> None:
        async with (
            serving(distinct_target),
            localrpc.aio.insecure_channel(distinct_target, interceptors=interceptors) as channel,
        ):
            call = channel.unary_stream("/house/count")(b"2")
            assert [await call.read() for _ in range(5)] == [b"0", b"1", aio.EOF, aio.EOF, aio.EOF]
            assert await call.code() is grpc.StatusCode.OK

    asyncio.run(run())


class Listening(aio.UnaryStreamClientInterceptor):
    """As OpenTelemetry's: it wants to know when the call is over."""

    def __init__(self) -> None:
        self.over: list[Any] = []

    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        call = await continuation(details, request)
        call.add_done_callback(self.over.append)
        return call


@pytest.mark.parametrize("intercepts", [False, True])
@pytest.mark.parametrize("listens", [False, True])
def test_a_stream_with_callbacks_is_cancelled_when_it_is_dropped(
    distinct_target: str, intercepts: bool, listens: bool
) -> None:
    """grpc/grpc#43462: a callback kept the call, and nothing ended it."""

    async def run() -> None:
        listening = Listening()
        over: list[Any] = []
        async with (
            serving(distinct_target) as handlers,
            localrpc.aio.insecure_channel(
                distinct_target, interceptors=(listening,) if intercepts else ()
            ) as channel,
        ):
            call = channel.unary_stream("/house/endless")(b"")
            assert await call.read() == b"x" * 1000
            if listens:
                call.add_done_callback(over.append)
            del call
            await become(lambda: handlers.ended == ["endless"])
            await become(lambda: len(over) == listens and len(listening.over) == intercepts)
            for each in over + listening.over:
                assert await each.code() is grpc.StatusCode.CANCELLED
            assert all(isinstance(each, aio.UnaryStreamCall) for each in over)

    asyncio.run(run())


def test_a_dropped_call_with_one_response_and_a_callback_goes_on(distinct_target: str) -> None:
    """As a future does: the callback is what becomes of it."""

    async def run() -> None:
        over: list[Any] = []
        async with house(distinct_target) as (_, channel):
            channel.unary_unary("/house/later")(b"x").add_done_callback(over.append)
            await become(lambda: bool(over))
            assert await over[0] == b"x"

    asyncio.run(run())


def test_close_leaves_no_task_of_a_stream_whose_handler_goes_on(distinct_target: str) -> None:
    """grpc/grpc#41875: what waited for its status stayed."""

    async def slow(requests: Any, context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request
        await asyncio.Event().wait()

    behaviour: Any = slow
    method: Any = grpc.stream_stream_rpc_method_handler(behaviour)
    handler = grpc.method_handlers_generic_handler("s", {"slow": method})

    async def run() -> None:
        before = asyncio.all_tasks()
        server = localrpc.aio.server(handlers=(handler,))
        server.add_insecure_port(distinct_target)
        await server.start()
        channel = localrpc.aio.insecure_channel(distinct_target)
        call = channel.stream_stream("/s/slow")()
        for _ in range(20):
            await call.write(b"x")
            assert await call.read() == b"x"
        await call.done_writing()
        await asyncio.wait_for(channel.close(grace=0.01), PATIENCE)
        await server.stop(None)
        assert asyncio.all_tasks() == before
        assert await call.code() is grpc.StatusCode.CANCELLED

    asyncio.run(run())


@pytest.mark.parametrize("answers", [0, 1])
def test_abort_ends_a_plain_handler_at_once(distinct_target: str, answers: int) -> None:
    """grpc/grpc#37518: code after it ran; #28989: the client of a stream waited without end."""
    after: list[str] = []

    def plain(request: bytes, context: Any) -> bytes:
        context.abort(grpc.StatusCode.NOT_FOUND, "not here")
        after.append("plain")
        return request

    def plain_stream(request: bytes, context: Any) -> Iterator[bytes]:
        for _ in range(answers):
            yield request
        context.abort(grpc.StatusCode.NOT_FOUND, "not here")
        after.append("plain_stream")

    handler = grpc.method_handlers_generic_handler(
        "s",
        {
            "plain": grpc.unary_unary_rpc_method_handler(plain),
            "stream": grpc.unary_stream_rpc_method_handler(plain_stream),
        },
    )

    async def run() -> None:
        with futures.ThreadPoolExecutor(2) as pool:
            server = localrpc.aio.server(pool, handlers=(handler,))
            server.add_insecure_port(distinct_target)
            await server.start()
            async with localrpc.aio.insecure_channel(distinct_target) as channel:
                calls: list[Any] = []
                for _ in range(50):
                    call = channel.unary_stream("/s/stream")(b"x", timeout=PATIENCE)
                    calls += [channel.unary_unary("/s/plain")(b"x", timeout=PATIENCE), call]
                    for _ in range(answers):
                        assert await call.read() == b"x"
                    with pytest.raises(aio.AioRpcError, match="not here"):
                        await call.read()
                assert {await call.code() for call in calls} == {grpc.StatusCode.NOT_FOUND}
            await server.stop(None)

    asyncio.run(run())
    assert after == []


def test_an_upload_that_the_server_ends_leaves_no_task_and_no_complaint(
    distinct_target: str,
) -> None:
    """grpc/grpc#25339, #25351: "Task exception was never retrieved" when the loop ended."""
    complaints: list[Any] = []
    begun: list[int] = []
    closed: list[int] = []

    async def requests(number: int) -> AsyncIterator[bytes]:
        begun.append(number)
        try:
            while True:
                yield b"x" * 1000
        finally:
            closed.append(number)

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda loop, context: complaints.append(context)
        )
        before = asyncio.all_tasks()
        async with house(distinct_target) as (_, channel):
            for number in range(20):
                with pytest.raises(aio.AioRpcError) as caught:
                    await channel.stream_unary("/house/nothing")(requests(number))
                assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
                del caught
        assert asyncio.all_tasks() == before
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(run())
    assert complaints == []
    assert sorted(closed) == begun

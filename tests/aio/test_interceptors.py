"""Interceptors of clients and servers, and the calls that they intercept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc import aio

import localrpc.aio

from .house import house, serving


class Noting(
    aio.UnaryUnaryClientInterceptor,
):
    """Adds metadata, and notes what passes."""

    def __init__(self, name: str, noted: list[str]) -> None:
        self.name = name
        self.noted = noted

    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        self.noted.append(f"{self.name} {client_call_details.method.decode()}")
        client_call_details.metadata.add("by", self.name)
        call = await continuation(client_call_details, request + self.name.encode())
        self.noted.append(f"{self.name} {(await call).decode()}")
        return call


def test_the_first_interceptor_is_the_outermost(one_target: str) -> None:
    noted: list[str] = []

    async def run() -> None:
        interceptors = [Noting("a", noted), Noting("b", noted)]
        async with (
            serving(one_target),
            localrpc.aio.insecure_channel(one_target, interceptors=interceptors) as channel,
        ):
            call = channel.unary_unary("/house/headers")(b"x", metadata=(("k", "v"),))
            assert isinstance(call, aio.UnaryUnaryCall)
            assert await call == b"xab"
            trailing = await call.trailing_metadata()
            assert trailing.get_all("by") == ["a", "b"]
            assert trailing["k"] == "v"
            assert await call.code() is grpc.StatusCode.OK
            assert call.done()

    asyncio.run(run())
    assert noted == ["a /house/headers", "b /house/headers", "b xab", "a xab"]


class Answering(aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, *_: Any) -> Any:
        return b"answered"


class Replacing(aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        call = await continuation(details, request)

        async def doubled() -> AsyncIterator[bytes]:
            async for response in call:
                yield response * 2

        return doubled()


class Counting(aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self, continuation: Any, details: Any, request_iterator: Any
    ) -> Any:
        async def numbered() -> AsyncIterator[bytes]:
            number = 0
            async for request in request_iterator:
                yield b"%d" % number + request
                number += 1

        return await continuation(details, numbered())


class Summing(aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(
        self, continuation: Any, details: Any, request_iterator: Any
    ) -> Any:
        call = await continuation(details, request_iterator)
        return b"sum " + await call


def test_interceptors_of_every_kind_replace_what_passes(distinct_target: str) -> None:
    async def run() -> None:
        interceptors = [Replacing(), Counting(), Summing()]
        async with (
            serving(distinct_target),
            localrpc.aio.insecure_channel(distinct_target, interceptors=interceptors) as channel,
        ):
            count = channel.unary_stream("/house/count")(b"3")
            assert [each async for each in count] == [b"00", b"11", b"22"]
            assert await count.code() is grpc.StatusCode.OK
            chat = channel.stream_stream("/house/chat")()
            for number in range(3):
                await chat.write(b"x")
                assert await chat.read() == b"%dx" % number
            await chat.done_writing()
            assert [await chat.read() for _ in range(2)] == [aio.EOF] * 2
            length = channel.stream_unary("/house/length")
            assert await length(iter([b"ab", b"c"])) == b"sum 3"
            written = length()
            await written.write(b"abc")
            await written.done_writing()
            assert await written == b"sum 3"

    asyncio.run(run())


def test_a_callback_of_an_answered_call_is_called(one_target: str) -> None:
    async def run() -> None:
        async with localrpc.aio.insecure_channel(one_target, interceptors=[Answering()]) as channel:
            called: list[Any] = []
            call = channel.unary_unary("/house/echo")(b"x")
            call.add_done_callback(called.append)
            assert await call == b"answered"
            call.add_done_callback(called.append)
            await asyncio.sleep(0)
            assert called == [call, call]

    asyncio.run(run())


class Failing(aio.UnaryUnaryClientInterceptor):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def intercept_unary_unary(self, *_: Any) -> Any:
        raise self.error


def test_what_an_interceptor_raises_reaches_the_caller(one_target: str) -> None:
    refused = aio.AioRpcError(grpc.StatusCode.NOT_FOUND, aio.Metadata(), aio.Metadata(), "none")

    async def run() -> None:
        for error in (refused, ValueError("by intent")):
            async with localrpc.aio.insecure_channel(
                one_target, interceptors=[Failing(error)]
            ) as channel:
                call = channel.unary_unary("/house/echo")(b"x")
                with pytest.raises(type(error)) as caught:
                    await call
                assert caught.value is error
                assert call.done()
                if error is refused:
                    assert await call.code() is grpc.StatusCode.NOT_FOUND

    asyncio.run(run())


def test_cancelling_reaches_the_call_behind_the_interceptors(one_target: str) -> None:
    class Passing(aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            return await continuation(details, request)

    async def run() -> None:
        async with (
            serving(one_target) as handlers,
            localrpc.aio.insecure_channel(one_target, interceptors=[Passing()]) as channel,
        ):
            call = channel.unary_unary("/house/stuck")(b"x")
            await handlers.begun.wait()
            assert call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert call.cancelled()
            assert await call.code() is grpc.StatusCode.CANCELLED

    asyncio.run(run())


def test_an_object_that_is_no_interceptor_is_refused(one_target: str) -> None:
    with pytest.raises(ValueError, match=r"Interceptor .* must be UnaryUnaryClientInterceptor or"):
        localrpc.aio.insecure_channel(one_target, interceptors=[object()])
    with pytest.raises(ValueError, match="Interceptor must be ServerInterceptor"):
        localrpc.aio.server(interceptors=[object()])


class Renaming(aio.ServerInterceptor):
    def __init__(self, name: str, noted: list[str]) -> None:
        self.name = name
        self.noted = noted

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        self.noted.append(f"{self.name} {handler_call_details.method}")
        await asyncio.sleep(0)
        return await continuation(handler_call_details)


def test_a_server_has_interceptors(distinct_target: str) -> None:
    noted: list[str] = []

    async def run() -> None:
        interceptors = [Renaming("a", noted), Renaming("b", noted)]
        async with (
            serving(distinct_target, interceptors=interceptors),
            localrpc.aio.insecure_channel(distinct_target) as channel,
        ):
            assert await channel.unary_unary("/house/echo")(b"x") == b"x"
            assert [each async for each in channel.unary_stream("/house/count")(b"2")]

    asyncio.run(run())
    assert noted == ["a /house/echo", "b /house/echo", "a /house/count", "b /house/count"]


def test_a_house_without_interceptors_answers_directly(one_target: str) -> None:
    async def run() -> None:
        async with house(one_target) as (_, channel):
            call = channel.unary_unary("/house/echo")(b"x")
            assert type(call).__name__ == "UnaryUnaryCall"
            assert await call == b"x"

    asyncio.run(run())

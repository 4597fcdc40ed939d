"""The four kinds of call between the asyncio API and itself, and the synchronous one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from grpc import aio

import localrpc
import localrpc.aio

from .house import PATIENCE, house, serving, sync_serving

SIZES = (0, 1, 32 * 1024, 32 * 1024 + 1, (4 << 20) - 5)


async def four_kinds(channel: Any) -> None:
    """Call a server of either API in all four ways."""
    echo = channel.unary_unary("/house/echo")
    for size in SIZES:
        assert await echo(b"x" * size) == b"x" * size
    several = [echo(b"%d" % n) for n in range(200)]
    assert await asyncio.gather(*several) == [b"%d" % n for n in range(200)]
    count = channel.unary_stream("/house/count")
    assert [each async for each in count(b"1000")] == [b"%d" % n for n in range(1000)]
    length = channel.stream_unary("/house/length")
    assert await length(iter([b"x" * 1000] * 300)) == b"300000"
    assert await length(large_requests()) == b"1048576"
    back = channel.stream_stream("/house/back")
    assert [each async for each in back(iter([b"a", b"b"] * 300))] == [b"a", b"b"] * 300


async def large_requests() -> AsyncIterator[bytes]:
    for _ in range(8):
        yield b"y" * 131072
        await asyncio.sleep(0)


def test_asyncio_calls_asyncio(target: str) -> None:
    async def run() -> None:
        async with house(target) as (_, channel):
            await four_kinds(channel)

    asyncio.run(run())


def test_asyncio_calls_a_synchronous_server(target: str) -> None:
    async def run() -> None:
        async with localrpc.aio.insecure_channel(target) as channel:
            await four_kinds(channel)

    with sync_serving(target):
        asyncio.run(run())


def test_a_synchronous_client_calls_asyncio(target: str) -> None:
    def call() -> None:
        with localrpc.insecure_channel(target) as channel:
            echo = channel.unary_unary("/house/echo")
            for size in SIZES:
                assert echo(b"x" * size, timeout=PATIENCE) == b"x" * size
            futures = [echo.future(b"%d" % n) for n in range(100)]
            assert [each.result() for each in futures] == [b"%d" % n for n in range(100)]
            count = channel.unary_stream("/house/count")(b"1000")
            assert list(count) == [b"%d" % n for n in range(1000)]
            length = channel.stream_unary("/house/length")
            assert length(iter([b"x" * 1000] * 300)) == b"300000"
            back = channel.stream_stream("/house/back")
            assert list(back(iter([b"a", b"b"] * 300))) == [b"a", b"b"] * 300

    async def run() -> None:
        async with serving(target):
            await asyncio.to_thread(call)

    asyncio.run(run())


def test_reads_and_writes_take_turns(distinct_target: str) -> None:
    async def run() -> None:
        async with house(distinct_target) as (_, channel):
            call = channel.stream_stream("/house/chat")()
            for number in range(100):
                await call.write(b"%d" % number)
                assert await call.read() == b"%d" % number
            await call.done_writing()
            assert [await call.read() for _ in range(3)] == [aio.EOF] * 3
            assert await call.code() is grpc.StatusCode.OK

    asyncio.run(run())


def test_metadata_travels_both_ways(distinct_target: str) -> None:
    pairs = (("text", "value"), ("blob-bin", b"\x00\xff"), ("text", "again"))

    async def run() -> None:
        async with house(distinct_target) as (_, channel):
            call = channel.unary_unary("/house/headers")(b"x", metadata=pairs)
            assert await call.initial_metadata() == aio.Metadata(*pairs)
            trailing = await call.trailing_metadata()
            assert trailing.get_all("text") == ["value", "again"]
            assert trailing["blob-bin"] == b"\x00\xff"
            assert trailing["peer"]
            assert await call == b"x"

    asyncio.run(run())


def test_plain_functions_run_on_the_pool(distinct_target: str) -> None:
    async def run() -> None:
        async with house(distinct_target) as (_, channel):
            call = channel.unary_unary("/house/plain")(b"x")
            assert await call == b"x"
            assert tuple(await call.trailing_metadata()) == (("pool", "yes"),)
            count = channel.unary_stream("/house/plain_count")(b"50")
            assert [each async for each in count] == [b"%d" % n for n in range(50)]
            back = channel.stream_stream("/house/plain_back")
            assert [each async for each in back(iter([b"a"] * 50))] == [b"a"] * 50

    asyncio.run(run())


@pytest.mark.parametrize("name", ["abort", "broken", "missing"])
def test_a_failed_call_raises_its_status(one_target: str, name: str) -> None:
    expected = {
        "abort": (grpc.StatusCode.NOT_FOUND, "not here"),
        "broken": (grpc.StatusCode.UNKNOWN, "Unexpected <class 'ValueError'>: by intent"),
        "missing": (grpc.StatusCode.UNIMPLEMENTED, "Method not found!"),
    }

    async def run() -> None:
        async with house(one_target) as (_, channel):
            with pytest.raises(aio.AioRpcError) as caught:
                await channel.unary_unary(f"/house/{name}")(b"")
            assert (caught.value.code(), caught.value.details()) == expected[name]

    asyncio.run(run())


def test_without_a_server_a_call_fails_and_a_patient_one_waits(one_target: str) -> None:
    async def run() -> None:
        async with localrpc.aio.insecure_channel(one_target) as channel:
            echo = channel.unary_unary("/house/echo")
            with pytest.raises(aio.AioRpcError) as caught:
                await echo(b"")
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            with pytest.raises(aio.AioRpcError) as caught:
                await echo(b"", timeout=0.2, wait_for_ready=True)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            patient = echo(b"x", wait_for_ready=True)
            async with serving(one_target):
                assert await patient == b"x"

    asyncio.run(run())


def test_a_channel_connects_again(distinct_target: str) -> None:
    async def run() -> None:
        async with localrpc.aio.insecure_channel(distinct_target) as channel:
            echo = channel.unary_unary("/house/echo")
            for _ in range(3):
                async with serving(distinct_target):
                    assert await echo(b"x", wait_for_ready=True, timeout=PATIENCE) == b"x"

    asyncio.run(run())


def requests_that_fail() -> Iterator[bytes]:
    yield b"x"
    raise ValueError("by intent")


def test_a_request_iterator_that_raises_ends_the_call(distinct_target: str) -> None:
    async def run() -> None:
        async with house(distinct_target) as (_, channel):
            with pytest.raises(aio.AioRpcError) as caught:
                await channel.stream_unary("/house/length")(requests_that_fail())
            assert caught.value.code() is grpc.StatusCode.UNKNOWN

    asyncio.run(run())


def test_invalid_metadata_and_a_timeout_of_nothing_end_the_call(distinct_target: str) -> None:
    """Where grpc.aio differs: see the page of the asyncio API."""

    async def run() -> None:
        async with house(distinct_target) as (_, channel):
            echo = channel.unary_unary("/house/echo")
            for pairs in ((("Upper", "x"),), (("k", "\n"),)):
                with pytest.raises(aio.AioRpcError) as caught:
                    await echo(b"x", metadata=pairs)
                assert caught.value.code() is grpc.StatusCode.INTERNAL
            with pytest.raises(aio.AioRpcError) as caught:
                await echo(b"x", timeout=0)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    asyncio.run(run())


def test_a_handler_knows_the_user_of_its_client(distinct_target: str) -> None:
    users: list[int] = []

    async def ask(request: bytes, context: Any) -> bytes:
        users.append(localrpc.peer_credentials(context).uid)
        return request

    def ask_on_the_pool(request: bytes, context: Any) -> bytes:
        users.append(localrpc.peer_credentials(context).uid)
        return request

    method: Any = grpc.unary_unary_rpc_method_handler
    handler = grpc.method_handlers_generic_handler(
        "s", {"ask": method(ask), "ask_on_the_pool": method(ask_on_the_pool)}
    )

    async def run() -> None:
        server = localrpc.aio.server(handlers=(handler,))
        server.add_insecure_port(distinct_target)
        await server.start()
        async with localrpc.aio.insecure_channel(distinct_target) as channel:
            await channel.unary_unary("/s/ask")(b"")
            await channel.unary_unary("/s/ask_on_the_pool")(b"")
        await server.stop(None)

    asyncio.run(run())
    assert users == [os.getuid()] * 2

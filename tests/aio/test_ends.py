"""Deadlines, cancellation, stopping, and what is left afterwards."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import weakref
from typing import Any

import grpc
import pytest
from grpc import aio

import localrpc.aio
from localrpc.drive.loop_call import LoopCall
from tests.conftest import fresh_target
from tests.rpc.house import await_that

from .house import PATIENCE, Handlers, house, serving


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
    """grpc/grpc#43462."""

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
        # The server's accept thread may be about to close its own.
        await_that(lambda: len(os.listdir("/proc/self/fd")) <= before, "descriptors are closed")
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


def test_a_server_that_is_dropped_stops(one_target: str) -> None:
    async def run() -> None:
        async with localrpc.aio.insecure_channel(one_target) as channel:
            server = localrpc.aio.server(handlers=(Handlers(),))
            server.add_insecure_port(one_target)
            await server.start()
            call = channel.unary_unary("/house/stuck")(b"")
            await call.wait_for_connection()
            del server
            assert await call.code() is grpc.StatusCode.UNAVAILABLE

    asyncio.run(run())


def test_one_server_serves_local_and_remote_targets(one_target: str) -> None:
    """The grpc: target is grpc.aio's, with the same handlers; so is the channel."""

    async def run() -> None:
        server = localrpc.aio.server(handlers=(Handlers(),))
        server.add_insecure_port(one_target)
        port = server.add_insecure_port("grpc:127.0.0.1:0")
        with pytest.raises(RuntimeError, match="these credentials are not local credentials"):
            server.add_secure_port(one_target, grpc.ssl_server_credentials([(b"", b"")]))
        await server.start()
        later = server.add_insecure_port("grpc:127.0.0.1:0")
        for target in (one_target, f"grpc:127.0.0.1:{port}", f"grpc:127.0.0.1:{later}"):
            async with localrpc.aio.insecure_channel(target) as channel:
                echo = channel.unary_unary("/house/echo")
                assert await echo(b"x", wait_for_ready=True, timeout=PATIENCE) == b"x"
        await server.stop(None)

    asyncio.run(run())


def test_local_credentials_make_a_local_channel(one_target: str) -> None:
    async def run() -> None:
        server = localrpc.aio.server(handlers=(Handlers(),))
        server.add_secure_port(one_target, grpc.local_server_credentials())
        await server.start()
        credentials = grpc.local_channel_credentials()
        async with localrpc.aio.secure_channel(one_target, credentials) as channel:
            assert await channel.unary_unary("/house/echo")(b"x") == b"x"
        with pytest.raises(ValueError, match="a local link has no TLS"):
            localrpc.aio.secure_channel(one_target, grpc.ssl_channel_credentials())
        await server.stop(None)

    asyncio.run(run())


def test_a_signal_stops_a_server_within_its_grace(one_target: str) -> None:
    async def run() -> None:
        server = localrpc.aio.server(handlers=(Handlers(),))
        server.add_insecure_port(one_target)
        await server.start()
        localrpc.aio.stop_on_signals(server, PATIENCE)
        signal.raise_signal(signal.SIGTERM)
        assert not await server.wait_for_termination(PATIENCE)

    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        asyncio.run(run())
    finally:
        for number, action in former.items():
            signal.signal(number, action)


def test_more_calls_than_allowed_are_refused(one_target: str) -> None:
    async def run() -> None:
        async with (
            serving(one_target, maximum_concurrent_rpcs=1) as handlers,
            localrpc.aio.insecure_channel(one_target) as channel,
        ):
            stuck = channel.unary_unary("/house/stuck")(b"")
            await handlers.begun.wait()
            with pytest.raises(aio.AioRpcError) as caught:
                await channel.unary_unary("/house/echo")(b"")
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            stuck.cancel()

    asyncio.run(run())


def test_a_handler_that_raises_cancelled_error_ends_its_call(one_target: str) -> None:
    """grpc/grpc#29248: the client was told nothing."""

    async def give_up(request: bytes, context: Any) -> bytes:
        raise asyncio.CancelledError

    handler = grpc.method_handlers_generic_handler(
        "ends", {"give_up": grpc.unary_unary_rpc_method_handler(give_up)}
    )

    async def run() -> None:
        server = localrpc.aio.server(handlers=(handler,))
        server.add_insecure_port(one_target)
        await server.start()
        async with localrpc.aio.insecure_channel(one_target) as channel:
            with pytest.raises(aio.AioRpcError) as caught:
                await channel.unary_unary("/ends/give_up")(b"", timeout=PATIENCE)
            assert caught.value.code() is grpc.StatusCode.CANCELLED
        await server.stop(None)

    asyncio.run(run())


def test_connectivity_is_that_of_grpc_aio(one_target: str) -> None:
    async def run() -> None:
        channel = localrpc.aio.insecure_channel(one_target)
        assert channel.get_state() is grpc.ChannelConnectivity.IDLE
        async with serving(one_target):
            await asyncio.wait_for(channel.channel_ready(), PATIENCE)
            assert channel.get_state() is grpc.ChannelConnectivity.READY
            changed = asyncio.ensure_future(
                channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
            )
            await asyncio.sleep(0)
        await asyncio.wait_for(changed, PATIENCE)
        await channel.close()
        assert channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN

    asyncio.run(run())


@pytest.mark.parametrize("kinds", [("grpc",), ("grpc", "shm-eventfd")], ids="-".join)
def test_termination_is_the_end_of_calls_at_grpc_targets_too(
    runtime_directory: str, kinds: tuple[str, ...]
) -> None:
    async def run() -> None:
        begun, go = asyncio.Event(), asyncio.Event()

        async def held(request: bytes, context: Any) -> bytes:
            begun.set()
            await go.wait()
            return request

        handlers: Any = {"held": grpc.unary_unary_rpc_method_handler(held)}
        server = localrpc.aio.server(
            handlers=(grpc.method_handlers_generic_handler("s", handlers),)
        )
        targets = [fresh_target(kind, runtime_directory) for kind in kinds]
        for target in targets:
            server.add_insecure_port(target)
        await server.start()
        async with localrpc.aio.insecure_channel(targets[0]) as channel:
            call = channel.unary_unary("/s/held")(b"x")
            await begun.wait()
            termination = asyncio.ensure_future(server.wait_for_termination())
            stopping = asyncio.ensure_future(server.stop(PATIENCE))
            assert await server.wait_for_termination(0.01)  # not yet
            go.set()
            assert await call == b"x"
            await stopping
            assert await termination is False
        await server.stop(None)
        assert await server.wait_for_termination(PATIENCE) is False

    asyncio.run(run())


def test_a_read_that_is_given_up_does_not_cancel_the_write_of_another_task(
    distinct_target: str,
) -> None:
    async def run() -> None:
        full, done = asyncio.Event(), asyncio.Event()

        async def both(_: Any, context: Any) -> None:
            async def write() -> None:
                for _ in range(64):
                    await context.write(bytes(1 << 17))

            writing = asyncio.ensure_future(write())
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(context.read(), 0.05)
            full.set()
            await writing
            done.set()

        handlers: Any = {"both": grpc.stream_stream_rpc_method_handler(both)}
        server = localrpc.aio.server(
            handlers=(grpc.method_handlers_generic_handler("s", handlers),)
        )
        server.add_insecure_port(distinct_target)
        await server.start()
        async with localrpc.aio.insecure_channel(distinct_target) as channel:
            call: Any = channel.stream_stream("/s/both")()
            await full.wait()  # nothing is read before
            for _ in range(64):
                assert len(await call.read()) == 1 << 17
            await done.wait()
        await server.stop(None)

    asyncio.run(run())

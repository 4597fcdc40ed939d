"""As test_complaints.py: what users of grpc.aio have complained of, about servers."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent import futures
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc import aio

import localrpc.aio

from .house import PATIENCE, serving
from .scenarios import become

US: Any = grpc.unary_stream_rpc_method_handler
UU: Any = grpc.unary_unary_rpc_method_handler


@asynccontextmanager
async def serve(target: str, handlers: dict[str, Any], **named: Any) -> AsyncIterator[Any]:
    """A server of /s/ at `target`, which the caller may stop before the end."""
    generic = grpc.method_handlers_generic_handler("s", handlers)
    server = localrpc.aio.server(handlers=(generic,), **named)
    server.add_insecure_port(target)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(None)


def test_the_limit_of_concurrent_calls_holds_wave_after_wave(one_target: str) -> None:
    """grpc/grpc#30424, #41531: calls waited in place of being refused, or all accepted."""

    async def run() -> None:
        async with (
            serving(one_target, maximum_concurrent_rpcs=1) as handlers,
            localrpc.aio.insecure_channel(one_target) as channel,
        ):
            stuck = channel.unary_unary("/house/stuck")
            for _ in range(5):
                handlers.begun.clear()
                first = stuck(b"")
                await handlers.begun.wait()
                others = [stuck(b"") for _ in range(3)]
                codes = [await other.code() for other in others]
                assert codes == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 3
                handlers.ended.clear()
                first.cancel()
                await become(lambda: bool(handlers.ended))

    asyncio.run(run())


def test_stop_waits_for_the_rest_of_a_handler_that_has_aborted(one_target: str) -> None:
    """grpc/grpc#37239: its client had the answer, so it was not waited for."""
    told: list[str] = []
    aborted = asyncio.Event()

    async def abort(request: bytes, context: Any) -> bytes:
        try:
            await context.abort(grpc.StatusCode.ABORTED, "by intent")
        finally:
            aborted.set()
            for _ in range(5):
                await asyncio.sleep(0)
            told.append("released")
        return b""

    async def run() -> None:
        async with (
            serve(one_target, {"abort": UU(abort)}) as server,
            localrpc.aio.insecure_channel(one_target) as channel,
        ):
            call = channel.unary_unary("/s/abort")(b"")
            await aborted.wait()
            await server.stop(PATIENCE)
            assert told == ["released"]
            assert await call.code() is grpc.StatusCode.ABORTED

    asyncio.run(run())


@pytest.mark.parametrize("cancels", [True, False])
def test_a_stream_of_a_plain_generator_holds_up_no_stop(one_target: str, cancels: bool) -> None:
    """grpc/grpc#28999, #25327: a cancelled one made stop() hang, a slow one the whole server."""
    left = threading.Event()
    ever = threading.Event()

    def produce(request: bytes, context: Any) -> Iterator[bytes]:
        try:
            while not ever.is_set():
                yield request
        finally:
            left.set()

    async def echo(request: bytes, context: Any) -> bytes:
        return request

    async def run() -> None:
        with futures.ThreadPoolExecutor(1) as pool:
            async with (
                serve(
                    one_target,
                    {"produce": US(produce), "echo": UU(echo)},
                    migration_thread_pool=pool,
                ) as server,
                localrpc.aio.insecure_channel(one_target) as channel,
            ):
                call = channel.unary_stream("/s/produce")(b"x")
                assert await call.read() == b"x"
                # The pool is busy with it; the loop is not.
                assert await channel.unary_unary("/s/echo")(b"y", timeout=PATIENCE) == b"y"
                if cancels:
                    call.cancel()
                await asyncio.wait_for(server.stop(0), PATIENCE)
            ever.set()
        assert left.is_set()

    asyncio.run(run())


def test_a_plain_generator_that_waits_is_closed_after_its_step_and_not_waited_for(
    one_target: str,
) -> None:
    left, waiting, ever = threading.Event(), threading.Event(), threading.Event()

    def produce(request: bytes, context: Any) -> Iterator[bytes]:
        try:
            yield request
            waiting.set()
            ever.wait(PATIENCE)
            yield request
        finally:
            left.set()

    async def run() -> None:
        with futures.ThreadPoolExecutor(1) as pool:
            async with (
                serve(one_target, {"produce": US(produce)}, migration_thread_pool=pool) as server,
                localrpc.aio.insecure_channel(one_target) as channel,
            ):
                call = channel.unary_stream("/s/produce")(b"x")
                assert await call.read() == b"x"
                await asyncio.to_thread(waiting.wait, PATIENCE)
                call.cancel()
                await asyncio.wait_for(server.stop(0), PATIENCE / 2)
                assert not left.is_set()
            ever.set()
        assert left.is_set()

    asyncio.run(run())


LEVEL: contextvars.ContextVar[int] = contextvars.ContextVar("LEVEL", default=0)


def test_a_generator_is_closed_in_the_context_that_it_ran_in(one_target: str) -> None:
    """grpc/grpc#42295: a token was reset in another context, by the garbage collector."""
    told: list[object] = []

    async def produce(request: bytes, context: Any) -> AsyncIterator[bytes]:
        token = LEVEL.set(1)
        try:
            yield request
            await asyncio.Event().wait()
        finally:
            try:
                LEVEL.reset(token)
                told.append("reset")
            except ValueError as error:
                told.append(error)

    async def run() -> None:
        async with (
            serve(one_target, {"produce": US(produce)}),
            localrpc.aio.insecure_channel(one_target) as channel,
        ):
            call = channel.unary_stream("/s/produce")(b"x")
            assert await call.read() == b"x"
            call.cancel()
            await become(lambda: bool(told))
            assert told == ["reset"]

    asyncio.run(run())


class Passing(aio.ServerInterceptor):
    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        return await continuation(handler_call_details)


def test_a_stream_behind_a_server_interceptor_can_be_cancelled(one_target: str) -> None:
    """grpc/grpc#28778."""
    told: list[str] = []

    async def produce(request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            while True:
                yield request
        finally:
            told.append("left")

    async def run() -> None:
        async with (
            serve(one_target, {"produce": US(produce)}, interceptors=(Passing(),)),
            localrpc.aio.insecure_channel(one_target) as channel,
        ):
            call = channel.unary_stream("/s/produce")(b"x")
            assert await call.read() == b"x"
            assert call.cancel()
            assert await call.code() is grpc.StatusCode.CANCELLED
            await become(lambda: told == ["left"])

    asyncio.run(run())


def test_a_task_factory_sees_the_tasks_of_handlers(one_target: str) -> None:
    """Some libraries set one. This one drops the contexts that it is given."""
    seen: list[str] = []

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **_: Any) -> Any:
        seen.append(getattr(coroutine, "__qualname__", ""))
        return asyncio.Task(coroutine, loop=loop)

    async def echo(request: bytes, context: Any) -> bytes:
        await asyncio.sleep(0)
        return request

    async def run() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        async with (
            serve(one_target, {"echo": UU(echo)}),
            localrpc.aio.insecure_channel(one_target) as channel,
        ):
            seen.clear()
            for _ in range(3):
                assert await channel.unary_unary("/s/echo")(b"x", timeout=PATIENCE) == b"x"
            assert sum("serve" in name for name in seen) == 3

    asyncio.run(run())

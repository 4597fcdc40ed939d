"""What a turn of a loop sends leaves, also if the turn lasts, or is the loop's last."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

import localrpc.aio
from localrpc.drive.core import lib
from localrpc.drive.event_loop import LoopEngine
from localrpc.options import Options
from tests.aio.house import PATIENCE

LONG = 4 * PATIENCE
"""Seconds: what should never be waited for."""


class Elsewhere:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def begin(self, work: Awaitable[Any]) -> concurrent.futures.Future[Any]:
        async def wait() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(wait(), self.loop)

    def run(self, work: Awaitable[Any]) -> Any:
        return self.begin(work).result(PATIENCE)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    other = Elsewhere()
    yield other
    other.close()


class Handlers(grpc.GenericRpcHandler):
    """Some of them keep their loop busy until the client has what was sent before."""

    def __init__(self) -> None:
        self.has_come = threading.Semaphore(0)
        """What the client has received."""
        self.begun = threading.Semaphore(0)
        self.cancelled = threading.Semaphore(0)
        self.go: asyncio.Event | None = None
        self.made = threading.Semaphore(0)
        self.answered = 0

    async def tokens(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(5):
            yield b"%d" % number
            yield b"and"
            for _ in range(2):
                assert self.has_come.acquire(timeout=PATIENCE), f"after {number}"

    async def in_turn(self, request: bytes, context: Any) -> bytes:
        """The answers of those that began before have to come first."""
        for _ in range(self.answered):
            assert self.has_come.acquire(timeout=PATIENCE), f"before {request!r}"
        for _ in range(self.answered):
            self.has_come.release()
        self.answered += 1
        return request

    async def stuck(self, request: bytes, context: Any) -> bytes:
        self.begun.release()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.release()
        return b""

    async def large(self, request: bytes, context: Any) -> bytes:
        self.go = self.go or asyncio.Event()
        self.begun.release()
        await self.go.wait()
        self.made.release()
        return bytes(int(request))

    async def collect(self, requests: Any, context: Any) -> bytes:
        async for _ in requests:
            self.begun.release()
        return b""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        name = (handler_call_details.method or "").rpartition("/")[2]
        kinds: dict[str, Callable[..., Any]] = {
            "tokens": grpc.unary_stream_rpc_method_handler,
            "collect": grpc.stream_unary_rpc_method_handler,
        }
        return kinds.get(name, grpc.unary_unary_rpc_method_handler)(getattr(self, name))


@contextmanager
def serving(elsewhere: Elsewhere, target: str) -> Iterator[tuple[Handlers, Any]]:
    """A server on another thread's loop, and its handlers."""
    handlers = Handlers()

    async def start() -> Any:
        server = localrpc.aio.server(handlers=(handlers,))
        server.add_insecure_port(target)
        await server.start()
        return server

    server = elsewhere.run(start())
    try:
        yield handlers, server
    finally:
        elsewhere.run(server.stop(None))


def test_what_a_handler_has_sent_leaves_while_it_computes(
    elsewhere: Elsewhere, distinct_target: str
) -> None:
    async def main(handlers: Handlers) -> None:
        async with localrpc.aio.insecure_channel(distinct_target) as channel:
            got = []
            async for token in channel.unary_stream("/s/tokens")(b"", timeout=LONG):
                got.append(token)
                handlers.has_come.release()
            assert len(got) == 10

    with serving(elsewhere, distinct_target) as (handlers, _):
        asyncio.run(main(handlers))


@pytest.mark.parametrize("channels", [1, 4])
def test_an_answer_leaves_while_other_handlers_compute(
    elsewhere: Elsewhere, distinct_target: str, channels: int
) -> None:
    async def main(handlers: Handlers) -> None:
        made = [localrpc.aio.insecure_channel(distinct_target) for _ in range(channels)]
        for channel in made:
            await channel.channel_ready()

        async def ask(number: int) -> None:
            call = made[number % channels].unary_unary("/s/in_turn")
            await call(b"%d" % number, timeout=LONG)
            handlers.has_come.release()

        await asyncio.gather(*map(ask, range(12)))
        for channel in made:
            await channel.close()

    with serving(elsewhere, distinct_target) as (handlers, _):
        asyncio.run(main(handlers))


def test_a_server_stops_once_a_client_that_paused_has_read_all(
    elsewhere: Elsewhere, distinct_target: str
) -> None:
    async def main(handlers: Handlers, server: Any) -> None:
        async with localrpc.aio.insecure_channel(distinct_target) as channel:
            call = channel.unary_unary("/s/large")
            sizes = [60_000] * 30 + [3] * 5
            calls = [asyncio.ensure_future(call(b"%d" % size, timeout=LONG)) for size in sizes]
            for _ in sizes:  # all are sent
                while not handlers.begun.acquire(blocking=False):
                    await asyncio.sleep(0.001)
            # This loop reads nothing until it waits for the answers.
            assert handlers.go is not None
            elsewhere.loop.call_soon_threadsafe(handlers.go.set)
            stopping = elsewhere.begin(server.stop(LONG))
            for _ in sizes:
                assert handlers.made.acquire(timeout=PATIENCE)
            elsewhere.run(asyncio.sleep(0))  # they are sent, as far as there is room
            answers = await asyncio.gather(*calls)
            assert [len(answer) for answer in answers] == sizes
            await asyncio.wait_for(asyncio.wrap_future(stopping), PATIENCE)

    with serving(elsewhere, distinct_target) as (handlers, server):
        asyncio.run(main(handlers, server))


@pytest.mark.parametrize("ends", ["stops", "is closed"])
def test_cancellations_leave_although_the_loop_does_not_run(
    elsewhere: Elsewhere, distinct_target: str, ends: str
) -> None:
    with serving(elsewhere, distinct_target) as (handlers, _):
        loop = asyncio.new_event_loop()
        channel: Any = None

        async def begin() -> list[Any]:
            nonlocal channel
            channel = localrpc.aio.insecure_channel(distinct_target)
            calls = [channel.unary_unary("/s/stuck")(b"", timeout=LONG) for _ in range(3)]
            while not handlers.begun.acquire(blocking=False):
                await asyncio.sleep(0.001)
            return calls

        calls = loop.run_until_complete(begin())
        for _ in range(2):
            assert handlers.begun.acquire(timeout=PATIENCE)
        if ends == "is closed":
            loop.close()
        for call in calls:
            try:
                call.cancel()
            except RuntimeError as error:  # as of grpc.aio's
                assert str(error) == "Event loop is closed"  # noqa: PT017
        for _ in range(3):
            assert handlers.cancelled.acquire(timeout=PATIENCE)
        if ends == "stops":
            loop.run_until_complete(channel.close())
            loop.close()


def test_what_the_last_turn_of_a_loop_writes_leaves(
    elsewhere: Elsewhere, distinct_target: str
) -> None:
    with serving(elsewhere, distinct_target) as (handlers, _):
        loop = asyncio.new_event_loop()
        calls: list[Any] = []
        channel: Any = None

        async def begin() -> None:
            nonlocal channel
            channel = localrpc.aio.insecure_channel(distinct_target)
            for _ in range(3):
                calls.append(channel.stream_unary("/s/collect")(timeout=LONG))
                await calls[-1].write(b"one")

        async def write() -> None:
            for call in calls:
                await call.write(b"two")

        loop.run_until_complete(begin())
        loop.run_until_complete(write())
        for _ in range(6):
            assert handlers.begun.acquire(timeout=PATIENCE)
        loop.run_until_complete(channel.close())
        loop.close()


def test_a_turn_that_the_loop_refuses_is_not_taken_for_begun() -> None:
    """As asyncio's debug mode does on another thread; then nothing would end a later turn."""

    class Refusing:
        def call_soon(self, *_: object) -> None:
            raise RuntimeError

        def is_closed(self) -> bool:
            return False

    class Engine(LoopEngine):
        def take(self, news: Any, buf: bytes) -> None:
            pass

    engine = Engine(lib.LR_CLIENT, Options(), -1)
    engine._loop = Refusing()  # type: ignore[assignment]
    for _ in range(2):
        with pytest.raises(RuntimeError):
            engine.sending()
    engine._loop = None
    engine.close()

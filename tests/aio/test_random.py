"""Calls of every kind at once, cancelled, timed out and abandoned at random.

Invariant: each ends once, by its deadline, with what was asked for or with the status that its
history allows; afterwards nothing is left of them, on either side.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
from typing import Any

import grpc
import pytest
from grpc import aio

import localrpc.aio
from tests.concurrency.engines import figures, live_calls, queued_bytes

from .house import PATIENCE, Handlers
from .scenarios import become

FULL = os.environ.get("LOCALRPC_SOAK") == "full"
CALLS = 20_000 if FULL else 250
BOUND = 3600.0 if FULL else PATIENCE
AT_ONCE = 40
SIZES = (0, 1, 100, 5_000, 32_768, 32_769, 200_000, 1_500_000)
ALLOWED = (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)
ANY_SIZE = (("grpc.max_receive_message_length", -1),)


class Client:
    """Random calls, whose choices come from `draw` alone."""

    def __init__(self, channel: Any, draw: random.Random) -> None:
        self.channel = channel
        self.draw = draw

    def message(self) -> bytes:
        return self.draw.randbytes(1) * self.draw.choice(SIZES)

    def timeout(self) -> float | None:
        return self.draw.choice((None, None, PATIENCE, 0.001, 0.02))

    async def pause(self) -> None:
        for _ in range(self.draw.randrange(20)):
            await asyncio.sleep(0)

    async def unary(self) -> None:
        name = self.draw.choice(("echo", "later", "plain"))
        message = self.message()
        method = self.channel.unary_unary(f"/house/{name}")
        assert await method(message, timeout=self.timeout()) == message

    async def stuck(self) -> None:
        call = self.channel.unary_unary("/house/stuck")(self.message(), timeout=self.timeout())
        await self.pause()
        call.cancel()
        assert await call.code() in ALLOWED

    async def count(self) -> None:
        call = self.channel.unary_stream("/house/count")(b"150", timeout=self.timeout())
        assert [each async for each in call] == [b"%d" % number for number in range(150)]

    async def dropped(self) -> None:
        call = self.channel.unary_stream("/house/endless")(b"", timeout=self.timeout())
        for _ in range(self.draw.randrange(3)):
            assert await call.read() == b"x" * 1000
        del call

    async def unread(self) -> None:
        call = self.channel.unary_stream("/house/endless")(b"", timeout=self.timeout())
        await self.pause()
        call.cancel()
        assert await call.code() in ALLOWED

    async def length(self) -> None:
        messages = [self.message() for _ in range(self.draw.randrange(6))]
        method = self.channel.stream_unary("/house/length")
        total = sum(map(len, messages))
        assert await method(iter(messages), timeout=self.timeout()) == b"%d" % total

    async def chat(self) -> None:
        name = self.draw.choice(("chat", "back"))
        call = self.channel.stream_stream(f"/house/{name}")(timeout=self.timeout())
        for _ in range(self.draw.randrange(6)):
            message = self.message()
            await call.write(message)
            assert await call.read() == message
        await call.done_writing()
        assert await call.read() is aio.EOF
        assert await call.read() is aio.EOF

    async def writes_ahead(self) -> None:
        call = self.channel.stream_stream("/house/back")(timeout=self.timeout())
        messages = [self.message() for _ in range(5)]

        async def write() -> None:
            for message in messages:
                await call.write(message)
            await call.done_writing()

        writing = asyncio.ensure_future(write())
        try:
            for message in messages:
                assert await call.read() == message
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def one(self) -> None:
        kinds = (self.unary, self.stuck, self.count, self.dropped, self.unread)
        kind = self.draw.choice((*kinds, self.unary, self.length, self.chat, self.writes_ahead))
        work = asyncio.ensure_future(kind())
        if self.draw.random() < 0.2:
            await self.pause()
            work.cancel()
        try:
            await work
        except asyncio.CancelledError:
            pass
        except asyncio.InvalidStateError:
            pass  # a write after the end
        except aio.AioRpcError as error:
            if error.code() not in ALLOWED:
                raise

    async def run(self, count: int) -> None:
        places = asyncio.Semaphore(AT_ONCE)

        async def take_place() -> None:
            async with places:
                await self.one()

        await asyncio.gather(*(take_place() for _ in range(count)))


class Apart:
    """The server on a loop of its own, in a thread."""

    server: Any

    def __init__(self, target: str) -> None:
        self._up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(target)))
        self._thread.start()
        assert self._up.wait(PATIENCE)

    async def _serve(self, target: str) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self.server = await serve(target)
        self._up.set()
        await self._stopping.wait()
        await self.server.stop(None)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


async def serve(target: str) -> Any:
    server = localrpc.aio.server(handlers=(Handlers(),), options=ANY_SIZE)
    server.add_insecure_port(target)
    await server.start()
    return server


async def call(target: str, seed: int, server: Any) -> None:
    async with localrpc.aio.insecure_channel(target, ANY_SIZE) as channel:
        draw = random.Random(f"{seed} {target.partition(':')[0]}")
        await asyncio.wait_for(Client(channel, draw).run(CALLS), BOUND)
        gc.collect()
        await become(lambda: live_calls(server) == 0)
        await become(lambda: queued_bytes(server) == 0)
        assert figures(server).miscounted == 0
        session = channel._binding.bound.session  # type: ignore[union-attr]
        assert session is not None
        assert not session.calls
        assert not session._waiting


@pytest.mark.parametrize("seed", range(8 if FULL else 1))
def test_every_call_ends_and_nothing_is_left(distinct_target: str, seed: int) -> None:
    async def run() -> None:
        server = await serve(distinct_target)
        await call(distinct_target, seed, server)
        await server.stop(None)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())


@pytest.mark.parametrize("seed", range(8 if FULL else 1))
def test_the_same_between_two_loops(distinct_target: str, seed: int) -> None:
    apart = Apart(distinct_target)
    try:
        asyncio.run(call(distinct_target, seed, apart.server))
    finally:
        apart.stop()

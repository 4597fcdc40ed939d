"""The station as an asyncio server, with the same methods and the same records."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import grpc

import localrpc.aio
from tests.peers.journal import PATIENCE, Pen
from tests.peers.station import ANY_SIZE


class AioStation:
    """See Station. Its loop runs in a thread of its own."""

    server: Any

    def __init__(self, target: str, pen: Pen) -> None:
        self._pen = pen
        self._produced = 0
        self._serving = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(target,))
        self._thread.start()
        assert self._serving.wait(PATIENCE)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def _run(self, target: str) -> None:
        try:
            asyncio.run(self._serve(target))
        except BaseException as error:
            self._failure = error
            self._serving.set()

    async def _serve(self, target: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self.server = localrpc.aio.server(handlers=(self.handlers(),), options=ANY_SIZE)
        self.server.add_insecure_port(target)
        await self.server.start()
        self._serving.set()
        await self._stopping.wait()
        await self.server.stop(None)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    def handlers(self) -> Any:
        uu: Any = grpc.unary_unary_rpc_method_handler
        us: Any = grpc.unary_stream_rpc_method_handler
        su: Any = grpc.stream_unary_rpc_method_handler
        ss: Any = grpc.stream_stream_rpc_method_handler
        return grpc.method_handlers_generic_handler(
            "station",
            {
                "echo": uu(self._echo),
                "produced": uu(self._count),
                "hold": uu(self._hold),
                "answer": uu(self._answer),
                "trickle": us(self._trickle),
                "produce": us(self._produce),
                "consume": su(self._consume),
                "reads_nothing": su(self._reads_nothing),
                "mirror": ss(self._mirror),
                "flood": ss(self._flood),
            },
        )

    def _enter(self, name: str, context: Any) -> None:
        context.add_done_callback(lambda done: self._pen.say("over", name, not done.done()))
        self._pen.say("entered", name)

    async def _wait(self, name: str) -> None:
        """Wait until the call's end cancels the handler."""
        try:
            await asyncio.Event().wait()
        finally:
            self._pen.say("left", name)

    async def _echo(self, request: bytes, context: Any) -> bytes:
        return request

    async def _count(self, request: bytes, context: Any) -> bytes:
        return b"%d" % self._produced

    async def _hold(self, request: bytes, context: Any) -> bytes:
        self._enter("hold", context)
        await self._wait("hold")
        return request

    async def _answer(self, request: bytes, context: Any) -> bytes:
        self._enter("answer", context)
        self._produced = 1
        self._pen.say("left", "answer")
        return bytes(int(request))

    async def _trickle(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        self._enter("trickle", context)
        yield b"first"
        await self._wait("trickle")

    async def _produce(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        self._enter("produce", context)
        async for message in self._endless(int(request), "produce"):
            yield message

    async def _endless(self, size: int, name: str) -> AsyncIterator[bytes]:
        message = bytes(size)
        self._produced = 0
        try:
            while True:
                self._produced += 1
                yield message
        finally:
            self._pen.say("left", name)

    async def _consume(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        count = 0
        async for _ in self._read(requests, context, "consume"):
            count += 1
        return b"%d" % count

    async def _mirror(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in self._read(requests, context, "mirror"):
            yield request

    async def _read(
        self, requests: AsyncIterator[bytes], context: Any, name: str
    ) -> AsyncIterator[bytes]:
        """Yield the requests; record what interrupts them before the handler is left."""
        first = await requests.__anext__()
        self._enter(name, context)
        try:
            yield first
            async for request in requests:
                yield request
        except asyncio.CancelledError:
            self._pen.say("broken", name)
            raise
        finally:
            self._pen.say("left", name)

    async def _reads_nothing(self, requests: Any, context: Any) -> bytes:
        self._enter("reads_nothing", context)
        await self._wait("reads_nothing")
        return b""

    async def _flood(self, requests: Any, context: Any) -> AsyncIterator[bytes]:
        self._enter("flood", context)
        async for message in self._endless(16_000, "flood"):
            yield message


def serve(target: str, pen: Pen) -> None:
    """A process's whole life as a server."""

    async def run() -> None:
        server = localrpc.aio.server(
            handlers=(AioStation.handlers(_Recorder(pen)),), options=ANY_SIZE
        )
        server.add_insecure_port(target)
        await server.start()
        localrpc.aio.stop_on_signals(server)
        pen.say("serving")
        await server.wait_for_termination()

    asyncio.run(run())


class _Recorder(AioStation):
    """The methods without a server of their own."""

    def __init__(self, pen: Pen) -> None:
        self._pen = pen
        self._produced = 0

"""asyncio's own streams: what a team writes that has no RPC library."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from . import bench_pb2
from .drivers import Call, Loop
from .loops import PLAIN, LoopKind, serving
from .peer import TIMEOUT, Client, Dress, Peer, checked, message

_Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class StreamsPeer(Peer):
    """A length of four bytes and a message each way, on asyncio's streams over a Unix socket."""

    def __init__(self, kind: LoopKind = PLAIN) -> None:
        self._kind = kind
        self.name = f"asyncio-streams{kind.suffix}"
        self.what = f"asyncio's streams over a Unix socket{kind.addition}"
        self.module, self.package = kind.package, kind.package

    @contextmanager
    def serve(self, directory: Path) -> Iterator[None]:
        with serving(partial(_serve, _path(directory)), self._kind):
            yield

    def connect(self, directory: Path) -> Client:
        return _Client(_path(directory), Loop(self._kind.new))


def _path(directory: Path) -> str:
    return str(directory / "streams.sock")


async def _serve(path: str, ready: Callable[[], None], stop: asyncio.Event) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                length = await reader.readexactly(4)
                payload = await reader.readexactly(int.from_bytes(length, "little"))
                answer = bench_pb2.Echo.FromString(payload).SerializeToString()
                writer.write(len(answer).to_bytes(4, "little") + answer)
                await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(echo, path)
    ready()
    await stop.wait()
    server.close()


class _Client(Client):
    """As many connections as there are calls at a time."""

    driver: Loop

    def __init__(self, path: str, loop: Loop) -> None:
        self.driver = loop
        self._path = path
        self._idle: list[_Pair] = []
        self._all: list[_Pair] = []

    async def _exchange(self, payload: bytes) -> bytes:
        pair = self._idle.pop() if self._idle else await self._open()
        reader, writer = pair
        writer.write(len(payload).to_bytes(4, "little") + payload)
        await writer.drain()
        answer = await reader.readexactly(int.from_bytes(await reader.readexactly(4), "little"))
        self._idle.append(pair)
        return answer

    async def _open(self) -> _Pair:
        pair = await asyncio.open_unix_connection(self._path)
        self._all.append(pair)
        return pair

    def unary(self, size: int, dress: Dress) -> Call:
        request = message(size)
        if dress is Dress.FULL:
            return super().unary(size, dress)

        async def call() -> bench_pb2.Echo:
            exchange = self._exchange(request.SerializeToString())
            timed = dress is Dress.TIMEOUT
            return bench_pb2.Echo.FromString(
                await (asyncio.wait_for(exchange, TIMEOUT) if timed else exchange)
            )

        return checked(self.driver, call, request)

    def close(self) -> None:
        async def close() -> None:
            for _, writer in self._all:
                writer.close()
                await writer.wait_closed()

        self.driver.run(close())
        self.driver.close()

"""The asyncio APIs of grpcio and localrpc, with one event loop on each side."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc

import localrpc.aio
from localrpc.transports import scheme_for

from . import bench_pb2
from .bench_localrpc import BenchAsyncServicer, BenchAsyncStub, add_BenchServicer_to_server
from .drivers import STRIDE, Call, Loop
from .loops import PLAIN, LoopKind, serving
from .peer import TIMEOUT, Client, Dress, Peer, UnsupportedScenario, checked, message, noise
from .rpc import CHAT, ECHO, OPTIONS, RAW, SOCKETS, LocalrpcPeer, grpcio_target


class AioPeer(Peer):
    """A server and channels of `api`, which is grpc.aio or localrpc.aio."""

    api: Any

    def __init__(self, kind: LoopKind) -> None:
        self._kind = kind
        self.module, self.package = kind.package, kind.package

    @abstractmethod
    def target(self, directory: Path) -> str:
        """Where the server listens."""

    @contextmanager
    def serve(self, directory: Path) -> Iterator[None]:
        with serving(partial(_serve, self.api, self.target(directory)), self._kind):
            yield

    def connect(self, directory: Path) -> Client:
        return AioClient(self.api, self.target(directory), Loop(self._kind.new))


class GrpcioAioPeer(AioPeer):
    """grpc.aio over a Unix socket, or over TCP."""

    api = grpc.aio

    def __init__(self, scheme: str = "unix", kind: LoopKind = PLAIN) -> None:
        super().__init__(kind)
        self._scheme = scheme
        name = "grpcio-aio" if scheme == "unix" else f"grpcio-{scheme}-aio"
        self.name = f"{name}{kind.suffix}"
        self.what = f"grpcio's asyncio API over {SOCKETS[scheme]}{kind.addition}"

    def target(self, directory: Path) -> str:
        return grpcio_target(self._scheme, directory, self.name)


class LocalrpcAioPeer(AioPeer):
    """localrpc.aio over one of localrpc's transports."""

    api = localrpc.aio

    def __init__(self, scheme: str, kind: LoopKind = PLAIN) -> None:
        super().__init__(kind)
        self._plain = LocalrpcPeer(scheme)
        self.name = f"{scheme}-aio{kind.suffix}"
        self.what = f"localrpc's asyncio API, {scheme_for(scheme).example}{kind.addition}"

    def target(self, directory: Path) -> str:
        return self._plain.target(directory, f"aio{self._kind.suffix}")


async def _serve(api: Any, target: str, ready: Callable[[], None], stop: asyncio.Event) -> None:
    server = api.server(options=OPTIONS)
    add_BenchServicer_to_server(Servicer(), server)
    server.add_generic_rpc_handlers((_raw_handler(),))
    server.add_insecure_port(target)
    await server.start()
    ready()
    await stop.wait()
    await server.stop(None)


class Servicer(BenchAsyncServicer):
    async def Unary(self, request: bench_pb2.Echo, context: Any) -> bench_pb2.Echo:
        return request

    async def Download(
        self, request: bench_pb2.Echo, context: Any
    ) -> AsyncIterator[bench_pb2.Echo]:
        while True:
            yield request

    async def Upload(
        self, request_iterator: AsyncIterator[bench_pb2.Echo], context: Any
    ) -> bench_pb2.Count:
        messages = 0
        async for _ in request_iterator:
            messages += 1
        return bench_pb2.Count(messages=messages)


def _raw_handler() -> grpc.GenericRpcHandler:
    async def echo(request: bytes, context: Any) -> bytes:
        return request

    async def chat(requests: Any, context: Any) -> AsyncIterator[bench_pb2.Echo]:
        async for request in requests:
            yield request

    behavior: Any = (echo, chat)
    return grpc.method_handlers_generic_handler(
        RAW,
        {
            "Echo": grpc.unary_unary_rpc_method_handler(behavior[0]),
            "Chat": grpc.stream_stream_rpc_method_handler(
                behavior[1],
                request_deserializer=bench_pb2.Echo.FromString,
                response_serializer=bench_pb2.Echo.SerializeToString,
            ),
        },
    )


class AioClient(Client):
    driver: Loop

    def __init__(self, api: Any, target: str, loop: Loop) -> None:
        self.driver = loop

        async def open_() -> Any:
            channel = api.insecure_channel(target, OPTIONS)
            await asyncio.wait_for(channel.channel_ready(), TIMEOUT)
            return channel

        self._channel = self.driver.run(open_())
        self._stub = BenchAsyncStub(self._channel)

    def unary(self, size: int, dress: Dress) -> Call:
        request = message(size)
        if dress is Dress.FULL:
            raise UnsupportedScenario
        timeout = TIMEOUT if dress is Dress.TIMEOUT else None
        return checked(self.driver, partial(self._stub.Unary, request, timeout=timeout), request)

    def raw(self, size: int) -> Call:
        payload = noise(size)
        return checked(self.driver, partial(self._channel.unary_unary(ECHO), payload), payload)

    @contextmanager
    def chat(self, size: int) -> Iterator[Call]:
        request = message(size)
        method = self._channel.stream_stream(
            CHAT,
            request_serializer=bench_pb2.Echo.SerializeToString,
            response_deserializer=bench_pb2.Echo.FromString,
        )
        stream: list[Any] = []

        async def call() -> object:
            if not stream:
                stream.append(method())
            await stream[0].write(request)
            return await stream[0].read()

        try:
            yield checked(self.driver, call, request)
        finally:
            self._cancel(stream)

    @contextmanager
    def download(self, size: int) -> Iterator[Any]:
        request = message(size)
        stream: list[Any] = []

        async def messages() -> AsyncIterator[object]:
            if not stream:
                stream.append(self._stub.Download(request))
            # Not the call's own iterator, which ends with the loop that drains it.
            while (answer := await stream[0].read()) is not grpc.aio.EOF:
                yield answer

        class Messages:
            def __aiter__(self) -> AsyncIterator[object]:
                return messages()

        try:
            yield Messages()
        finally:
            self._cancel(stream)

    def _cancel(self, stream: list[Any]) -> None:
        async def cancel() -> None:
            for call in stream:
                call.cancel()
                await asyncio.wait({asyncio.ensure_future(_end(call))}, timeout=TIMEOUT)

        self.driver.run(cancel())

    def upload(self, size: int, more: Callable[[], bool]) -> int:
        request = message(size)

        async def requests() -> AsyncIterator[bench_pb2.Echo]:
            while more():
                for _ in range(STRIDE):
                    yield request

        async def call() -> Any:
            return await self._stub.Upload(requests())

        count: int = self.driver.run(call()).messages
        return count

    def close(self) -> None:
        self.driver.run(self._channel.close())
        self.driver.close()


async def _end(call: Any) -> None:
    # A cancelled call raises here.
    try:
        await call.code()
    except asyncio.CancelledError:
        return

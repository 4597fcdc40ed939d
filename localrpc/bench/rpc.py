"""Peers with gRPC's API: localrpc over each of its transports, and grpcio."""

from __future__ import annotations

import compileall
import os
import queue
import re
import shutil
import subprocess
import sys
import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc

import localrpc
from localrpc.transports import scheme_for

from . import bench_pb2
from .bench_localrpc import BenchServicer, BenchStub, add_BenchServicer_to_server
from .drivers import STRIDE, Call
from .peer import TIMEOUT, Client, Dress, Peer, checked, message, noise

POOL = 10
RAW = "localrpc.bench.v1.Raw"
PAIRS = (
    ("authorization", "Bearer 0123456789abcdef"),
    ("x-request-id", "4f1d7a52-6d0c-4a55-9b35-1c1f5d0f8a11"),
    ("x-tenant", "benchmark"),
    ("x-trace-bin", bytes(range(16))),
)
# grpcio's own limit is 4 MiB.
OPTIONS = [("grpc.max_receive_message_length", -1)]
ECHO = f"/{RAW}/Echo"
CHAT = f"/{RAW}/Chat"


class RpcPeer(Peer):
    """A peer with gRPC's API, called through a generated stub and servicer."""

    library: str
    """Whose insecure_channel() its programs use."""

    @abstractmethod
    def target(self, directory: Path, server: str) -> str: ...

    @abstractmethod
    def server(self, pool: futures.ThreadPoolExecutor, interceptors: list[Any]) -> grpc.Server: ...

    @abstractmethod
    def channel(self, target: str) -> grpc.Channel: ...

    @contextmanager
    def serve(self, directory: Path) -> Iterator[None]:
        with ExitStack() as stack:
            for name, servicer, interceptors in (
                ("plain", Servicer(), []),
                ("dressed", DressedServicer(), [PassingServerInterceptor()]),
            ):
                pool = futures.ThreadPoolExecutor(max_workers=POOL)
                server = self.server(pool, interceptors)
                add_BenchServicer_to_server(servicer, server)
                server.add_generic_rpc_handlers((raw_handler(),))
                server.add_insecure_port(self.target(directory, name))
                server.start()
                stack.callback(_stop, server)
            yield

    def connect(self, directory: Path) -> Client:
        target = partial(self.target, directory)
        program = partial(_program, self.library, directory, target("plain"))
        return RpcClient(lambda server: self.channel(target(server)), program)


class GrpcioPeer(RpcPeer):
    """grpcio over a Unix socket, or over TCP."""

    library = "grpc"

    def __init__(self, scheme: str = "unix") -> None:
        self._scheme = scheme
        self.name = "grpcio" if scheme == "unix" else f"grpcio-{scheme}"
        self.what = f"grpcio over {SOCKETS[scheme]}"

    def target(self, directory: Path, server: str) -> str:
        return grpcio_target(self._scheme, directory, f"{self.name}-{server}")

    def server(self, pool: futures.ThreadPoolExecutor, interceptors: list[Any]) -> grpc.Server:
        return grpc.server(pool, interceptors=interceptors, options=OPTIONS)

    def channel(self, target: str) -> grpc.Channel:
        return grpc.insecure_channel(target, OPTIONS)


SOCKETS = {"unix": "a Unix socket", "tcp": "TCP, within the machine"}


def grpcio_target(scheme: str, directory: Path, name: str) -> str:
    if scheme == "unix":
        return f"unix:{directory / f'{name}.sock'}"
    return f"127.0.0.1:{port_of(directory, name)}"


def port_of(directory: Path, name: str) -> int:
    """Return a port that both processes compute for themselves, below the ephemeral ports."""
    return 12_000 + zlib.crc32(f"{directory.name}-{name}".encode()) % 20_000


class LocalrpcPeer(RpcPeer):
    """localrpc over one of its transports; `query` is the options of its target."""

    library = "localrpc"

    def __init__(self, scheme: str, query: str = "") -> None:
        self._scheme = scheme
        self._query = f"?{query}" if query else ""
        self.name = scheme + self._query
        self.what = f"localrpc, {scheme_for(scheme).example}"

    def target(self, directory: Path, server: str) -> str:
        # LOCALRPC_RUNTIME_DIR is `directory`, but abstract names are global.
        body = f"{directory.name}-{self.name_in_files}-{server}"
        if scheme_for(self._scheme).example.endswith("PATH"):
            body = str(directory / f"{body}.sock")
        elif scheme_for(self._scheme).example.endswith("PORT"):
            body = f"127.0.0.1:{port_of(directory, body)}"
        return f"{self._scheme}:{body}{self._query}"

    @property
    def name_in_files(self) -> str:
        return re.sub(r"\W", "-", self.name)

    def server(self, pool: futures.ThreadPoolExecutor, interceptors: list[Any]) -> grpc.Server:
        return localrpc.server(pool, interceptors=interceptors, options=OPTIONS)

    def channel(self, target: str) -> grpc.Channel:
        return localrpc.insecure_channel(target, OPTIONS)


class RpcClient(Client):
    def __init__(self, dial: Callable[[str], grpc.Channel], program: Callable[[int], Call]) -> None:
        self._dial = dial
        self._program = program
        self._channels = ExitStack()
        self._channel = self._open("plain")
        self._stub = BenchStub(self._channel)
        self._dressed: BenchStub | None = None

    def _open(self, server: str) -> grpc.Channel:
        channel = self._channels.enter_context(self._dial(server))
        try:
            grpc.channel_ready_future(channel).result(timeout=TIMEOUT)
        except grpc.FutureTimeoutError:
            # The call tells why.
            method: Any = channel.unary_unary(ECHO)
            method(b"", timeout=TIMEOUT)
            raise
        return channel

    def unary(self, size: int, dress: Dress) -> Call:
        request = message(size)
        call: Call
        if dress is Dress.FULL:
            call = partial(_call_dressed, self._dressed_stub().Unary, request)
        elif dress is Dress.TIMEOUT:
            call = partial(self._stub.Unary, request, timeout=TIMEOUT)
        else:
            call = partial(self._stub.Unary, request)
        return checked(self.driver, call, request)

    def raw(self, size: int) -> Call:
        payload = noise(size)
        method: Any = self._channel.unary_unary(ECHO)
        return checked(self.driver, partial(method, payload), payload)

    def program(self, size: int) -> Call:
        call = self._program(size)
        self.driver.once(call)
        return call

    @contextmanager
    def chat(self, size: int) -> Iterator[Call]:
        request = message(size)
        requests: queue.SimpleQueue[bench_pb2.Echo | None] = queue.SimpleQueue()
        method: Any = self._channel.stream_stream(
            CHAT,
            request_serializer=bench_pb2.Echo.SerializeToString,
            response_deserializer=bench_pb2.Echo.FromString,
        )
        answers = method(iter(requests.get, None))

        def call() -> object:
            requests.put(request)
            return next(answers)

        try:
            yield checked(self.driver, call, request)
        finally:
            requests.put(None)
            answers.cancel()

    @contextmanager
    def download(self, size: int) -> Iterator[Iterator[object]]:
        call = self._stub.Download(message(size))
        try:
            yield call
        finally:
            call.cancel()

    def upload(self, size: int, more: Callable[[], bool]) -> int:
        request = message(size)

        def requests() -> Iterator[bench_pb2.Echo]:
            while more():
                for _ in range(STRIDE):
                    yield request

        return self._stub.Upload(requests()).messages

    def close(self) -> None:
        self._channels.close()

    def _dressed_stub(self) -> BenchStub:
        if self._dressed is None:
            channel = grpc.intercept_channel(self._open("dressed"), PassingClientInterceptor())
            self._dressed = BenchStub(channel)
        return self._dressed


class Servicer(BenchServicer):
    def Unary(self, request: bench_pb2.Echo, context: grpc.ServicerContext) -> bench_pb2.Echo:
        return request

    def Download(
        self, request: bench_pb2.Echo, context: grpc.ServicerContext
    ) -> Iterator[bench_pb2.Echo]:
        while True:
            yield request

    def Upload(
        self, request_iterator: Iterator[bench_pb2.Echo], context: grpc.ServicerContext
    ) -> bench_pb2.Count:
        messages = 0
        for _ in request_iterator:
            messages += 1
        return bench_pb2.Count(messages=messages)


class DressedServicer(Servicer):
    def Unary(self, request: bench_pb2.Echo, context: grpc.ServicerContext) -> bench_pb2.Echo:
        if len(context.invocation_metadata()) < len(PAIRS):
            context.abort(grpc.StatusCode.INTERNAL, "the call's metadata did not arrive")
        context.set_trailing_metadata(PAIRS)
        return request


class PassingServerInterceptor(grpc.ServerInterceptor):
    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        return continuation(handler_call_details)


class PassingClientInterceptor(grpc.UnaryUnaryClientInterceptor):
    def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        return continuation(client_call_details, request)


def raw_handler() -> grpc.GenericRpcHandler:
    """Echoes bytes, without serializers; and messages, on a stream."""

    def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
        return request

    def chat(requests: Iterator[bench_pb2.Echo], context: grpc.ServicerContext) -> Any:
        yield from requests

    return grpc.method_handlers_generic_handler(
        RAW,
        {
            "Echo": grpc.unary_unary_rpc_method_handler(echo),
            "Chat": grpc.stream_stream_rpc_method_handler(
                chat,
                request_deserializer=bench_pb2.Echo.FromString,
                response_serializer=bench_pb2.Echo.SerializeToString,
            ),
        },
    )


def _call_dressed(method: Any, request: bench_pb2.Echo) -> object:
    response, call = method.with_call(request, timeout=TIMEOUT, metadata=PAIRS)
    if len(call.trailing_metadata()) < len(PAIRS):
        raise RuntimeError("the server's metadata did not arrive")
    return response


# `stubs` is a package of its own, because importing localrpc.bench would import localrpc.
PROGRAM = """
import sys
import {library}
from stubs.bench_localrpc import BenchStub
from stubs.bench_pb2 import Echo

request = Echo(payload=bytes(int(sys.argv[2])))
with {library}.insecure_channel(sys.argv[1]) as channel:
    answer = BenchStub(channel).Unary(request, timeout=10)
sys.exit(answer != request)
"""


def _program(library: str, directory: Path, target: str, size: int) -> Call:
    folder = directory / f"program-{os.getpid()}-{library}"
    stubs = folder / "stubs"
    stubs.mkdir(parents=True, exist_ok=True)
    for name in ("bench_localrpc.py", "bench_pb2.py"):
        shutil.copy(Path(__file__).with_name(name), stubs)
    compileall.compile_dir(stubs, quiet=1)
    program = folder / "program.py"
    program.write_text(PROGRAM.format(library=library))
    command = [sys.executable, str(program), target, str(size)]
    # What it imports is compiled once, not with each start.
    env = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return partial(subprocess.run, command, check=True, env=env)


def _stop(server: grpc.Server) -> None:
    server.stop(grace=None).wait()

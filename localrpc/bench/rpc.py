"""Who is measured: a peer is one small class, or one line for each of our transports."""

from __future__ import annotations

import random
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import AbstractContextManager, ExitStack, contextmanager
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import grpc

import localrpc
from localrpc.address import SCHEMES, parse_target

from . import bench_pb2
from .bench_localrpc import BenchServicer, BenchStub, add_BenchServicer_to_server

POOL = 10
TIMEOUT = 10.0
RAW = "localrpc.bench.v1.Raw"
PAIRS = (
    ("authorization", "Bearer 0123456789abcdef"),
    ("x-request-id", "4f1d7a52-6d0c-4a55-9b35-1c1f5d0f8a11"),
    ("x-tenant", "benchmark"),
    ("x-trace-bin", bytes(range(16))),
)


class Dress(Enum):
    """What a unary call wears."""

    PLAIN = "plain"
    TIMEOUT = "timeout="
    FULL = "timeout=, four metadata pairs each way, one interceptor a side"


class UnsupportedScenario(Exception):
    """This peer has nothing that the scenario could measure."""


class Client(ABC):
    """The calling side; sizes are those of the encoded message. Closed by `close`."""

    def unary(self, size: int, dress: Dress) -> Callable[[], object]:
        """What makes one call and returns its answer, after one checked call."""
        raise UnsupportedScenario

    def raw(self, size: int) -> Callable[[], object]:
        """As `unary`, for bytes that nothing serializes."""
        raise UnsupportedScenario

    def download(self, size: int) -> AbstractContextManager[Iterator[object]]:
        """An endless stream of messages, ended on leaving."""
        raise UnsupportedScenario

    def upload(self, size: int, more: Callable[[], bool]) -> int:
        """Sends messages while `more()`, asked now and then; how many arrived."""
        raise UnsupportedScenario

    @abstractmethod
    def close(self) -> None: ...


class Peer(ABC):
    """One way to make calls. Its two halves run in different processes."""

    name: str

    @abstractmethod
    def serve(self, directory: Path) -> AbstractContextManager[None]:
        """A running server, which keeps what it needs to be found in `directory`."""

    @abstractmethod
    def connect(self, directory: Path) -> Client:
        """A client of the server that was given the same directory."""


class RpcPeer(Peer):
    """A peer with gRPC's API, called through a generated stub and servicer."""

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
        return RpcClient(lambda server: self.channel(self.target(directory, server)))


class GrpcioPeer(RpcPeer):
    """grpcio over a Unix socket."""

    name = "grpcio"

    def target(self, directory: Path, server: str) -> str:
        return f"unix:{directory / f'grpcio-{server}.sock'}"

    def server(self, pool: futures.ThreadPoolExecutor, interceptors: list[Any]) -> grpc.Server:
        return grpc.server(pool, interceptors=interceptors)

    def channel(self, target: str) -> grpc.Channel:
        return grpc.insecure_channel(target)


class LocalrpcPeer(RpcPeer):
    """localrpc over one of its transports; `query` is the options of its target."""

    def __init__(self, scheme: str, query: str = "") -> None:
        self._scheme = scheme
        self._query = f"?{query}" if query else ""
        self.name = scheme + self._query

    def target(self, directory: Path, server: str) -> str:
        # LOCALRPC_RUNTIME_DIR is `directory`, but abstract names are everybody's.
        body = f"{directory.name}-{self.name_in_files}-{server}"
        if SCHEMES[self._scheme].example.endswith("PATH"):
            body = str(directory / f"{body}.sock")
        elif SCHEMES[self._scheme].example.endswith("PORT"):
            # Both processes reckon it for themselves. Below the ephemeral ports.
            body = f"127.0.0.1:{12_000 + zlib.crc32(body.encode()) % 20_000}"
        return f"{self._scheme}:{body}{self._query}"

    @property
    def name_in_files(self) -> str:
        return re.sub(r"\W", "-", self.name)

    def server(self, pool: futures.ThreadPoolExecutor, interceptors: list[Any]) -> grpc.Server:
        return localrpc.server(pool, interceptors=interceptors)

    def channel(self, target: str) -> grpc.Channel:
        return localrpc.insecure_channel(target)


class RpcClient(Client):
    def __init__(self, dial: Callable[[str], grpc.Channel]) -> None:
        self._dial = dial
        self._channels = ExitStack()
        self._channel = self._open("plain")
        self._stub = BenchStub(self._channel)
        self._dressed: BenchStub | None = None

    def _open(self, server: str) -> grpc.Channel:
        channel = self._channels.enter_context(self._dial(server))
        grpc.channel_ready_future(channel).result(timeout=TIMEOUT)
        return channel

    def unary(self, size: int, dress: Dress) -> Callable[[], object]:
        request = message(size)
        call: Callable[[], object]
        if dress is Dress.FULL:
            call = partial(_call_dressed, self._dressed_stub().Unary, request)
        elif dress is Dress.TIMEOUT:
            call = partial(self._stub.Unary, request, timeout=TIMEOUT)
        else:
            call = partial(self._stub.Unary, request)
        return _checked(call, request)

    def raw(self, size: int) -> Callable[[], object]:
        payload = random.Random(size).randbytes(size)
        method: Any = self._channel.unary_unary(f"/{RAW}/Echo")
        return _checked(partial(method, payload), payload)

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
                for _ in range(64):
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


def message(size: int) -> bench_pb2.Echo:
    """An Echo that encodes to `size` bytes of no pattern; `size` is at least 2."""
    header = bench_pb2.Echo(payload=bytes(size)).ByteSize() - size
    return bench_pb2.Echo(payload=random.Random(size).randbytes(size - header))


def raw_handler() -> grpc.GenericRpcHandler:
    """Echoes bytes, without serializers."""

    def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
        return request

    return grpc.method_handlers_generic_handler(
        RAW, {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    )


def _call_dressed(method: Any, request: bench_pb2.Echo) -> object:
    response, call = method.with_call(request, timeout=TIMEOUT, metadata=PAIRS)
    if len(call.trailing_metadata()) < len(PAIRS):
        raise RuntimeError("the server's metadata did not arrive")
    return response


def _checked(call: Callable[[], object], expected: object) -> Callable[[], object]:
    if call() != expected:
        raise RuntimeError("the answer is not what was sent")
    return call


def _stop(server: grpc.Server) -> None:
    server.stop(grace=None).wait()


_OURS = [name for name, scheme in SCHEMES.items() if scheme.meets and name != "grpc"]
"""Where calls between processes go through localrpc; grpc: would measure grpcio once more."""


def known_peers() -> list[str]:
    """Names that find_peer() takes, ours first; options may follow those of ours."""
    return [*_OURS, GrpcioPeer.name]


def default_peers() -> list[str]:
    """Every transport once: an abstract name differs from a path in nothing but the name."""
    return [name for name in known_peers() if name != "unix-abstract"]


def find_peer(name: str) -> Peer:
    """The peer called `grpcio`, `SCHEME` or `SCHEME?OPTION=VALUE`; raises ValueError."""
    if name == GrpcioPeer.name:
        return GrpcioPeer()
    scheme, _, query = name.partition("?")
    if scheme not in _OURS:
        raise ValueError(f"unknown peer {name!r}; there are {', '.join(known_peers())}")
    peer = LocalrpcPeer(scheme, query)
    parse_target(peer.target(Path("/check"), "plain"))
    return peer

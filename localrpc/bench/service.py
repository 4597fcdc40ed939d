"""A service of the user's own, on a server that is already running."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import Message

import localrpc
from localrpc.transports import parse_target

from .drivers import Call
from .peer import TIMEOUT, Client, Dress, Peer, UnsupportedScenario


class ServiceError(ValueError):
    """The method cannot be called as requested; the text says why."""


@dataclass(frozen=True)
class Request:
    """A unary method and its request; `descriptors` is a FileDescriptorSet."""

    descriptors: bytes
    method: str
    data: str

    def load(self) -> tuple[Message, Any]:
        """Return the request, and the class of its answer. Raises ServiceError."""
        pool = descriptor_pool.DescriptorPool()
        files = descriptor_pb2.FileDescriptorSet.FromString(self.descriptors).file
        for file in files:
            pool.Add(file)
        method = self._find(pool, files)
        if method.client_streaming or method.server_streaming:
            raise ServiceError(f"{self.method} streams; only unary methods can be measured")
        request = message_factory.GetMessageClass(method.input_type)()
        try:
            json_format.Parse(self.data, request, descriptor_pool=pool)
        except json_format.ParseError as error:
            why = " ".join(str(error).split())  # some have several lines
            raise ServiceError(f"--data is not a {method.input_type.full_name}: {why}") from None
        return request, message_factory.GetMessageClass(method.output_type)

    def _find(self, pool: Any, files: Sequence[Any]) -> Any:
        service, _, name = self.method.removeprefix("/").partition("/")
        known = []
        for file in files:
            for one in file.service:
                full = f"{file.package}.{one.name}".lstrip(".")
                known += [f"/{full}/{method.name}" for method in one.method]
        if f"/{service}/{name}" not in known:
            raise ServiceError(f"no method {self.method}; known are {', '.join(known) or 'none'}")
        return pool.FindServiceByName(service).methods_by_name[name]


def load_request(proto: Path, include: Sequence[Path], method: str, data: str) -> Request:
    """Read the method from `proto`. Raises ServiceError."""
    if find_spec("grpc_tools") is None:
        raise ServiceError("--proto needs grpcio-tools: pip install 'localrpc[codegen]'")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "descriptors"
        roots = [*include, *([] if include else [proto.parent])]
        command = [sys.executable, "-m", "grpc_tools.protoc", "--include_imports"]
        command += [f"--proto_path={root}" for root in roots]
        done = subprocess.run(
            [*command, f"--descriptor_set_out={out}", str(proto)], capture_output=True, text=True
        )
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["protoc failed"]
            raise ServiceError(lines[0])
        request = Request(out.read_bytes(), method, data)
    request.load()
    return request


class ServicePeer(Peer):
    """Calls one method at a target, served by any process."""

    has_server = False

    def __init__(self, target: str, request: Request) -> None:
        """Raise AddressError if the target is malformed."""
        parse_target(target)
        self.name = target
        self.what = f"{request.method} at {target}"
        self.request = request
        self.request_size = request.load()[0].ByteSize()

    def serve(self, directory: Path) -> AbstractContextManager[None]:
        raise NotImplementedError

    def connect(self, directory: Path) -> Client:
        return _ServiceClient(localrpc.insecure_channel(self.name), self.request)


class _ServiceClient(Client):
    def __init__(self, channel: grpc.Channel, request: Request) -> None:
        self._channel = channel
        self._message, answer = request.load()
        self._method: Any = channel.unary_unary(
            request.method,
            request_serializer=type(self._message).SerializeToString,
            response_deserializer=answer.FromString,
        )

    def unary(self, size: int, dress: Dress) -> Call:
        if dress is Dress.FULL:
            raise UnsupportedScenario
        timeout = TIMEOUT if dress is Dress.TIMEOUT else None
        call = partial(self._method, self._message, timeout=timeout)
        call()  # to fail now if it fails
        return call

    def close(self) -> None:
        self._channel.close()

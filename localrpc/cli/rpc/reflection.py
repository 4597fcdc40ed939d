"""Descriptors from the server itself, by gRPC server reflection."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from typing import Any

import click
import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from localrpc.cli.rpc.connection import Connection
from localrpc.cli.rpc.errors import CallFailed, Misuse
from localrpc.cli.rpc.schema import Schema

NEEDS = (
    "server reflection needs grpcio-reflection: pip install 'localrpc[cli]' "
    "(or give --proto FILE or --module NAME)"
)
_ELSEWHERE = "; give --proto FILE or --module NAME"
# The older version is served by grpcio-reflection and nearly all others; the messages are the same.
_OLDER, _NEWER = "grpc.reflection.v1alpha.", "grpc.reflection.v1."


def from_server(connection: Connection) -> Schema:
    """Return the schema of the server, which is queried when a descriptor is needed."""
    database = _Database(connection)
    return Schema(connection.target, DescriptorPool(database), database.services)


class _Database:
    """A descriptor database for DescriptorPool that reports failures unchanged."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._version = _OLDER
        self._inner = self._open()

    def services(self) -> Iterable[str]:
        names: Iterable[str] = self._ask("get_services")
        return names

    def FindFileByName(self, name: str) -> FileDescriptorProto:
        try:
            file: FileDescriptorProto = self._ask("FindFileByName", name)
        except KeyError:
            # Some servers do not return the files that every protobuf library has.
            return _bundled(name)
        return file

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptorProto:
        file: FileDescriptorProto = self._ask("FindFileContainingSymbol", symbol)
        return file

    def FindFileContainingExtension(self, message: str, number: int) -> FileDescriptorProto:
        file: FileDescriptorProto = self._ask("FindFileContainingExtension", message, number)
        return file

    def FindAllExtensionNumbers(self, message: str) -> Iterable[int]:
        numbers: Iterable[int] = self._ask("FindAllExtensionNumbers", message)
        return numbers

    def _open(self) -> Any:
        try:
            from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (  # type: ignore[import-untyped]
                ProtoReflectionDescriptorDatabase,
            )
        except ModuleNotFoundError as error:
            raise click.ClickException(NEEDS) from error
        return ProtoReflectionDescriptorDatabase(_Reflection(self._connection, self._version))

    def _ask(self, question: str, *arguments: Any) -> Any:
        target = self._connection.target
        try:
            return getattr(self._inner, question)(*arguments)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            if self._version == _NEWER:
                hint = f" (no server reflection at {target}{_ELSEWHERE})"
                raise CallFailed(error.code(), error.details(), hint) from error
            self._version = _NEWER
            self._inner = self._open()
            return self._ask(question, *arguments)
        except (AssertionError, StopIteration) as error:
            # grpcio-reflection's text for an error other than NOT_FOUND, and for a missing answer.
            words = str(error) or "it ended without an answer"
            raise Misuse(f"server reflection at {target} failed: {words}{_ELSEWHERE}") from error


class _Reflection:
    """The part of a channel that a stub of server reflection uses: one method, of one version."""

    def __init__(self, connection: Connection, version: str) -> None:
        self._connection = connection
        self._version = version

    def stream_stream(self, method: str, *arguments: Any, **named: Any) -> Any:
        path = method.replace(_OLDER, self._version)
        call = self._connection.channel.stream_stream(path, *arguments, **named)

        def ask(requests: Iterator[Any]) -> Any:
            return call(
                requests,
                timeout=self._connection.time_left(),
                metadata=self._connection.metadata,
            )

        return ask


def _bundled(name: str) -> FileDescriptorProto:
    """Return one of protobuf's own files. Raises KeyError for others."""
    if not name.startswith("google/protobuf/"):
        raise KeyError(name)
    try:
        module = importlib.import_module(
            name.removesuffix(".proto").replace("/", ".").replace("-", "_") + "_pb2"
        )
    except ModuleNotFoundError:
        raise KeyError(name) from None
    file = FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(file)
    return file

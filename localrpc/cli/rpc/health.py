"""`localrpc health`: prints a server's health, once or whenever it changes."""

from __future__ import annotations

import sys
from typing import Any

import click
import grpc
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from localrpc.cli.rpc import completion
from localrpc.cli.rpc.errors import CallFailed
from localrpc.cli.rpc.options import connection_options, open_connection

_STATES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
_SERVING = _STATES.index("SERVING")
_PACKAGE = "grpc.health.v1"
_ADVICE = "; a server has one with grpcio-health-checking's HealthServicer"


@click.command(short_help="Print the health of a server.")
@click.argument("target", shell_complete=completion.targets)
@click.argument("service", default="", shell_complete=completion.services)
@click.option("--watch", is_flag=True, help="Continue, and print each change.")
@connection_options
def health(service: str, watch: bool, **options: Any) -> None:
    """Print the health of the server at TARGET, or of its SERVICE, such as SERVING.

    The exit code is 0 for SERVING, 1 for any other state, 64 plus the status code if the
    call failed: 69 (NOT_FOUND) for a service that the server does not know, 76
    (UNIMPLEMENTED) for a server without a health service.
    """
    request, response = _messages()
    with open_connection(options) as connection:
        channel = connection.channel
        make = channel.unary_stream if watch else channel.unary_unary
        call: Any = make(
            f"/{_PACKAGE}.Health/{'Watch' if watch else 'Check'}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        status = 0
        try:
            answer = call(
                request(service=service),
                timeout=connection.time_left(),
                metadata=connection.metadata,
            )
            for each in answer if watch else (answer,):
                status = each.status
                click.echo(_STATES[status] if status < len(_STATES) else status)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            hint = f" (no health service at {connection.target}{_ADVICE})"
            raise CallFailed(error.code(), error.details(), hint) from error
    if status != _SERVING:
        sys.exit(1)


def _messages() -> tuple[Any, Any]:
    """Return HealthCheckRequest and HealthCheckResponse, without needing grpcio-health-checking.

    The status is declared as a number, which it is on the wire.
    """
    file = FileDescriptorProto(name="health.proto", package=_PACKAGE, syntax="proto3")
    for name, field, kind in (
        ("HealthCheckRequest", "service", FieldDescriptorProto.TYPE_STRING),
        ("HealthCheckResponse", "status", FieldDescriptorProto.TYPE_INT32),
    ):
        message = file.message_type.add(name=name)
        message.field.add(
            name=field, number=1, type=kind, label=FieldDescriptorProto.LABEL_OPTIONAL
        )
    pool = DescriptorPool()
    pool.Add(file)
    found = pool.FindFileByName(file.name).message_types_by_name
    return tuple(GetMessageClass(found[name]) for name in found)  # type: ignore[return-value]

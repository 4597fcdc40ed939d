"""What is built on top of gRPC's API: protobuf messages, health, reflection and rich status."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import status_pb2  # type: ignore[import-untyped]
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import (  # type: ignore[import-untyped]
    reflection,
    reflection_pb2,
    reflection_pb2_grpc,
)
from grpc_status import rpc_status  # type: ignore[import-untyped]

from .transcript import Transcript, drained, failure, outcome, plain
from .world import KINDS, SERVICE, World, answering, finish, handler, scenario


def _pool() -> descriptor_pool.DescriptorPool:
    """One message and one service, without a .proto file."""
    file = descriptor_pb2.FileDescriptorProto(
        name="parity.proto", package="parity", syntax="proto3"
    )
    message = file.message_type.add(name="Word")
    field = descriptor_pb2.FieldDescriptorProto
    message.field.add(name="text", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    message.field.add(name="times", number=2, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL)
    service = file.service.add(name="Service")
    service.method.add(name="Do", input_type=".parity.Word", output_type=".parity.Word")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


_POOL = _pool()
Word: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("parity.Word"))


def _shout(request: Any, context: Any) -> Any:
    return Word(text=request.text.upper() * max(request.times, 1))


@scenario
def protobuf_messages_in_every_kind(w: World) -> Transcript:
    def several(request: Any, context: Any) -> Iterator[Any]:
        for number in range(request.times):
            yield Word(text=request.text, times=number)

    def join(requests: Iterator[Any], context: Any) -> Any:
        return Word(text=" ".join(request.text for request in requests))

    def each(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for request in requests:
            yield _shout(request, context)

    story: Transcript = {}
    words = [Word(text="a", times=2), Word(text="\u2603"), Word()]
    for kind, behaviour in zip(KINDS, (_shout, several, join, each), strict=True):
        served = handler(
            kind,
            behaviour,
            request_deserializer=Word.FromString,
            response_serializer=Word.SerializeToString,
        )
        method = getattr(w.channel(w.serve({"Do": served})), kind)(
            f"/{SERVICE}/Do",
            request_serializer=Word.SerializeToString,
            response_deserializer=Word.FromString,
        )
        story[kind] = finish(kind, method, words)
    return story


@scenario
def protobuf_messages_that_are_none(w: World) -> Transcript:
    served = handler(
        "unary_unary",
        _shout,
        request_deserializer=Word.FromString,
        response_serializer=Word.SerializeToString,
    )
    channel = w.channel(w.serve({"Do": served}))
    raw = channel.unary_unary(f"/{SERVICE}/Do")
    typed = channel.unary_unary(f"/{SERVICE}/Do", request_serializer=Word.SerializeToString)
    misread = channel.unary_unary(
        f"/{SERVICE}/Do",
        request_serializer=Word.SerializeToString,
        response_deserializer=lambda data: Word.FromString(b"\xff" + data),
    )
    return {
        "not_protobuf": outcome(raw, b"\xff\xff\xff"),
        "wrong_type": outcome(typed, "text"),
        "misread": outcome(misread, Word()),
        "log": w.logged(),
    }


@scenario
def health_is_checked_and_watched(w: World) -> Transcript:
    servicer = health.HealthServicer()
    servicer.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    address = w.address()
    server = w.server()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(address)
    server.start()
    stub = health_pb2_grpc.HealthStub(w.channel(address))
    ask = health_pb2.HealthCheckRequest
    watch = stub.Watch(ask(service=SERVICE))
    states = [next(watch).status]
    servicer.set(SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)
    states.append(next(watch).status)
    watch.cancel()
    end = drained(watch)
    return {
        "all": stub.Check(ask()).status,
        "one": stub.Check(ask(service=SERVICE)).status,
        "none": outcome(stub.Check, ask(service="no.Service")),
        "states": states,
        "end": end,
    }


@scenario
def reflection_tells_services_and_files(w: World) -> Transcript:
    address = w.address()
    server = w.server()
    reflection.enable_server_reflection([SERVICE, reflection.SERVICE_NAME], server, pool=_POOL)
    server.add_insecure_port(address)
    server.start()
    stub = reflection_pb2_grpc.ServerReflectionStub(w.channel(address))
    ask = reflection_pb2.ServerReflectionRequest
    answers = list(
        stub.ServerReflectionInfo(
            iter(
                [
                    ask(list_services=""),
                    ask(file_containing_symbol=SERVICE),
                    ask(file_by_filename="none.proto"),
                ]
            )
        )
    )
    file = descriptor_pb2.FileDescriptorProto.FromString(
        answers[1].file_descriptor_response.file_descriptor_proto[0]
    )
    return {
        "services": [each.name for each in answers[0].list_services_response.service],
        "file": file.name,
        "error": answers[2].error_response.error_code,
    }


@scenario
def rich_status_reaches_the_client(w: World) -> Transcript:
    detail = AnyMessage()
    detail.Pack(StringValue(value="look here"))
    rich = status_pb2.Status(code=9, message="gr\u00fc\u00dfe", details=[detail])

    def refuse(context: Any) -> None:
        context.abort_with_status(rpc_status.to_status(rich))

    story: Transcript = {}
    for kind in KINDS:
        method = w.method(kind, answering(kind, refuse))
        try:
            call = method(b"") if kind.startswith("unary") else method(iter([b""]))
            list(call)
        except grpc.RpcError as error:
            caught: Any = error
        received = rpc_status.from_call(caught)
        story[kind] = [received == rich, plain(failure(caught)["code"]), caught.details()]
    return story


@scenario
def status_without_richness(w: World) -> Transcript:
    def refuse(context: Any) -> None:
        context.abort(grpc.StatusCode.NOT_FOUND, "nothing")

    try:
        w.method("unary_unary", answering("unary_unary", refuse))(b"")
    except grpc.RpcError as error:
        return {"status": plain(rpc_status.from_call(error))}
    return {}


@scenario
def rich_status_that_contradicts_the_call(w: World) -> Transcript:
    other = status_pb2.Status(code=5, message="other")

    def refuse(context: Any) -> None:
        context.set_trailing_metadata((("grpc-status-details-bin", other.SerializeToString()),))
        context.abort(grpc.StatusCode.ABORTED, "this")

    try:
        w.method("unary_unary", answering("unary_unary", refuse))(b"")
    except grpc.RpcError as error:
        return {"status": outcome(rpc_status.from_call, error)}
    return {}

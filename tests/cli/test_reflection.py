"""Server reflection of other makers: another version, fewer files, broken ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2 as messages  # type: ignore[import-untyped]
from localrpc_codegen.driver import compile_protos

from localrpc.testing import serving

from .scene import PROTO, Echo, handlers_of, run

Answer = Callable[[Any, Any], None]


def reflecting(version: str, answer: Answer) -> grpc.GenericRpcHandler:
    """`answer` fills in the response to each request."""

    def behaviour(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for request in requests:
            response = messages.ServerReflectionResponse(original_request=request)
            answer(request, response)
            yield response

    handler = grpc.stream_stream_rpc_method_handler(
        behaviour,
        messages.ServerReflectionRequest.FromString,
        messages.ServerReflectionResponse.SerializeToString,
    )
    name = f"grpc.reflection.{version}.ServerReflection"
    return grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler})


def one_file_at_a_time(*left_out: str) -> Answer:
    """Like servers that send no file that they are not asked for."""
    files = {f.name: f for f in compile_protos([PROTO], []) if f.name not in left_out}

    def answer(request: Any, response: Any) -> None:
        if request.HasField("list_services"):
            response.list_services_response.service.add(name="demo.v1.Echo")
            return
        name = request.file_by_filename
        if request.file_containing_symbol.startswith("demo.v1."):
            name = PROTO.name
        if name in files:
            protos = response.file_descriptor_response.file_descriptor_proto
            protos.append(files[name].SerializeToString())
        else:
            response.error_response.error_code = grpc.StatusCode.NOT_FOUND.value[0]

    return answer


@pytest.fixture
def call(one_target: str) -> Callable[[grpc.GenericRpcHandler], Any]:
    def made(reflection: grpc.GenericRpcHandler) -> Any:
        with serving(handlers_of(Echo()), reflection, target=one_target):
            return run("call", one_target, "Echo/One", "-d", '{"text": "a"}')

    return made


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_both_versions_are_understood(call: Any, version: str) -> None:
    done = call(reflecting(version, one_file_at_a_time()))
    assert done.stdout == '{"text": "a"}\n', done.output


def test_files_of_protobuf_need_not_come_from_the_server(call: Any) -> None:
    own = [f"google/protobuf/{name}.proto" for name in ("any", "struct", "timestamp")]
    done = call(reflecting("v1alpha", one_file_at_a_time(*own)))
    assert done.stdout == '{"text": "a"}\n', done.output


def test_a_missing_import_is_misuse_that_names_the_service(call: Any) -> None:
    def answer(request: Any, response: Any) -> None:
        one_file_at_a_time()(request, response)
        if request.file_containing_symbol == "demo.v1.Echo":
            protos = response.file_descriptor_response.file_descriptor_proto
            file = FileDescriptorProto.FromString(protos[0])
            file.dependency.append("gone.proto")
            protos[0] = file.SerializeToString()

    done = call(reflecting("v1alpha", answer))
    assert done.exit_code == 2
    assert "Echo" in done.stderr
    assert "gone.proto" in done.stderr


def test_a_service_without_a_description_has_its_own_error(call: Any) -> None:
    def answer(request: Any, response: Any) -> None:
        if request.HasField("list_services"):
            response.list_services_response.service.add(name="demo.v1.Echo")
        else:
            response.error_response.error_code = grpc.StatusCode.NOT_FOUND.value[0]

    done = call(reflecting("v1alpha", answer))
    assert done.exit_code == 2
    assert "lists demo.v1.Echo, but has no description of it" in done.stderr


def test_errors_other_than_not_found_are_reported(call: Any) -> None:
    def answer(request: Any, response: Any) -> None:
        response.error_response.error_code = grpc.StatusCode.INTERNAL.value[0]
        response.error_response.error_message = "broken today"

    done = call(reflecting("v1alpha", answer))
    assert done.exit_code == 2
    assert "broken today" in done.stderr
    assert "give --proto FILE or --module NAME" in done.stderr

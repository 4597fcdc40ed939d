"""`HealthServicer` with `Check` and `Watch`, reflection, rich status. Channelz answers, and knows
the channels and servers of `grpc:` targets only."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

import localrpc
from localrpc.testing import fresh_target

from .scene import SERVICE, TARGETS, Service, Word, at

LIBRARIES = (
    "grpcio-health-checking",
    "grpcio-reflection",
    "grpcio-status",
    "grpcio-channelz",
)


@pytest.mark.parametrize("target", TARGETS)
def test_health_is_checked_and_watched(target: str) -> None:
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

    servicer = health.HealthServicer()
    servicer.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)

    def add(server: grpc.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)

    with at(target)(add) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        ask = health_pb2.HealthCheckRequest
        states = health_pb2.HealthCheckResponse
        assert stub.Check(ask(service=SERVICE)).status == states.SERVING
        with pytest.raises(grpc.RpcError) as unknown:
            stub.Check(ask(service="other"))
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
        watch = stub.Watch(ask(service=SERVICE), timeout=20)
        assert next(watch).status == states.SERVING
        servicer.enter_graceful_shutdown()
        assert next(watch).status == states.NOT_SERVING
        watch.cancel()


@pytest.mark.parametrize("target", TARGETS)
def test_reflection_finds_services_and_their_messages(target: str) -> None:
    from grpc_health.v1 import health_pb2
    from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (  # type: ignore[import-untyped]
        ProtoReflectionDescriptorDatabase,
    )

    def add(server: grpc.Server) -> None:
        reflection.enable_server_reflection(["grpc.health.v1.Health"], server)

    with at(target)(add) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert "grpc.health.v1.Health" in database.get_services()
        file = database.FindFileContainingSymbol("grpc.health.v1.HealthCheckRequest")
        assert file.name == health_pb2.DESCRIPTOR.name
        assert [service.name for service in file.service] == ["Health"]


@pytest.mark.parametrize("target", TARGETS)
def test_a_rich_status_arrives(target: str) -> None:
    from google.protobuf.any_pb2 import Any as AnyMessage
    from google.protobuf.wrappers_pb2 import StringValue
    from google.rpc import status_pb2  # type: ignore[import-untyped]
    from grpc_status import rpc_status  # type: ignore[import-untyped]

    detail = AnyMessage()
    detail.Pack(StringValue(value="look here"))
    rich = status_pb2.Status(code=9, message="grüße", details=[detail])

    class Rich(Service):
        def refuse(self, request: Word, context: Any) -> Word:
            context.abort_with_status(rpc_status.to_status(rich))
            raise AssertionError("abort_with_status() returned")

    with at(target)(Rich().handler()) as channel:
        method = channel.unary_unary(f"/{SERVICE}/Refuse")
        with pytest.raises(grpc.RpcError) as caught:
            method(b"")
        assert rpc_status.from_call(caught.value) == rich
        assert rpc_status.from_call(method.future(b"")) == rich


@pytest.mark.parametrize("target", TARGETS)
def test_channelz_answers_and_knows_the_servers_of_grpc_targets(
    target: str, runtime_directory: str
) -> None:
    from grpc_channelz.v1 import channelz, channelz_pb2, channelz_pb2_grpc

    local, far = (fresh_target(each, runtime_directory) for each in (target, "grpc:"))
    with ThreadPoolExecutor(4) as pool:
        server = localrpc.server(pool)
        channelz.add_channelz_servicer(server)
        port = server.add_insecure_port(local)
        server.add_insecure_port(far)
        server.start()
        if local.startswith("tcp:"):
            local = f"tcp:127.0.0.1:{port}"
        with localrpc.insecure_channel(local) as channel, localrpc.insecure_channel(far) as other:
            stub = channelz_pb2_grpc.ChannelzStub(channel)
            known = stub.GetServers(channelz_pb2.GetServersRequest()).server
            assert known
            one = stub.GetServer(channelz_pb2.GetServerRequest(server_id=known[0].ref.server_id))
            assert one.server.ref == known[0].ref
            grpc.channel_ready_future(other).result(20)
            tops = stub.GetTopChannels(channelz_pb2.GetTopChannelsRequest()).channel
            assert any(far.removeprefix("grpc:") in top.data.target for top in tops)
        server.stop(None)

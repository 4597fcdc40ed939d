"""Sentry's spans for localrpc's calls, by Sentry's own gRPC interceptors.

from localrpc.integrations.sentry import LocalrpcIntegration
sentry_sdk.init(integrations=[LocalrpcIntegration()])
"""

from __future__ import annotations

import grpc
from sentry_sdk.integrations import Integration
from sentry_sdk.integrations.grpc.aio import client as aio_client
from sentry_sdk.integrations.grpc.aio import server as aio_server
from sentry_sdk.integrations.grpc.client import ClientInterceptor
from sentry_sdk.integrations.grpc.server import ServerInterceptor

import localrpc
import localrpc.aio


class LocalrpcIntegration(Integration):
    """Traces channels and servers of both APIs that are created after sentry_sdk.init().

    Calls at grpc: targets are grpcio's: use Sentry's GRPCIntegration for them.
    """

    identifier = "localrpc"

    @staticmethod
    def setup_once() -> None:
        def channel(methods: grpc.Channel) -> grpc.Channel:
            return grpc.intercept_channel(methods, ClientInterceptor())

        def aio_interceptors() -> list[grpc.aio.ClientInterceptor]:
            return [
                aio_client.SentryUnaryUnaryClientInterceptor(),
                aio_client.SentryUnaryStreamClientInterceptor(),
            ]

        localrpc.instrument(channel=channel, server=ServerInterceptor)
        localrpc.aio.instrument(client=aio_interceptors, server=aio_server.ServerInterceptor)

"""Sentry's spans for localrpc's calls, by Sentry's own gRPC interceptors.

from localrpc.integrations.sentry import LocalrpcIntegration
sentry_sdk.init(integrations=[LocalrpcIntegration()])
"""

from __future__ import annotations

import grpc
from sentry_sdk.integrations import Integration
from sentry_sdk.integrations.grpc.client import ClientInterceptor
from sentry_sdk.integrations.grpc.server import ServerInterceptor

import localrpc


class LocalrpcIntegration(Integration):
    """Traces channels and servers that are created after sentry_sdk.init().

    Calls at grpc: targets are grpcio's: use Sentry's GRPCIntegration for them.
    """

    identifier = "localrpc"

    @staticmethod
    def setup_once() -> None:
        def channel(methods: grpc.Channel) -> grpc.Channel:
            return grpc.intercept_channel(methods, ClientInterceptor())

        localrpc.instrument(channel=channel, server=ServerInterceptor)

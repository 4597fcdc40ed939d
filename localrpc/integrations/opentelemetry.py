"""OpenTelemetry's spans for localrpc's calls, by OpenTelemetry's own gRPC interceptors.

`opentelemetry-instrument` finds it by itself. Otherwise:

    from localrpc.integrations.opentelemetry import LocalrpcInstrumentor
    LocalrpcInstrumentor().instrument()
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import Any

import grpc
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

import localrpc
import localrpc.aio


class LocalrpcInstrumentor(BaseInstrumentor):
    """Traces channels and servers that are created after instrument().

    Of both APIs. Calls at grpc: targets are grpcio's: use GrpcInstrumentorClient,
    GrpcInstrumentorServer, and those with Aio in their names, for them.
    OTEL_PYTHON_GRPC_EXCLUDED_SERVICES applies here, too.
    """

    _undo: tuple[Callable[[], None], ...] = ()

    def instrumentation_dependencies(self) -> Collection[str]:
        return ("localrpc",)

    def _instrument(self, **kwargs: Any) -> None:
        """Take tracer_provider, filter_, request_hook and response_hook, as OpenTelemetry's own do.

        Raises ImportError without opentelemetry-instrumentation-grpc.
        """
        try:
            from opentelemetry.instrumentation import grpc as otel
        except ModuleNotFoundError as error:
            # Not as ModuleNotFoundError, which opentelemetry-instrument ignores silently.
            raise ImportError(
                f"localrpc is not traced ({error}): pip install opentelemetry-instrumentation-grpc"
            ) from None
        provider = kwargs.get("tracer_provider")
        filters = [kwargs.get("filter_"), _not_excluded(otel.filters)]
        chosen = otel.filters.all_of(*(one for one in filters if one is not None))
        client = otel.client_interceptor(
            provider, chosen, kwargs.get("request_hook"), kwargs.get("response_hook")
        )

        def channel(methods: grpc.Channel) -> grpc.Channel:
            wrapped: grpc.Channel = otel.grpcext.intercept_channel(methods, client)
            return wrapped

        def server() -> grpc.ServerInterceptor:
            interceptor: grpc.ServerInterceptor = otel.server_interceptor(provider, chosen)
            return interceptor

        def aio_client() -> list[grpc.aio.ClientInterceptor]:
            interceptors: list[grpc.aio.ClientInterceptor] = otel.aio_client_interceptors(
                provider, chosen, kwargs.get("request_hook"), kwargs.get("response_hook")
            )
            return interceptors

        def aio_server() -> grpc.aio.ServerInterceptor:
            interceptor: grpc.aio.ServerInterceptor = otel.aio_server_interceptor(provider, chosen)
            return interceptor

        self._undo = (
            localrpc.instrument(channel=channel, server=server),
            localrpc.aio.instrument(client=aio_client, server=aio_server),
        )

    def _uninstrument(self, **kwargs: Any) -> None:
        for undo in self._undo:
            undo()
        self._undo = ()


def _not_excluded(filters: Any) -> Any:
    """Return a filter by the environment variable of OpenTelemetry's own instrumentors."""
    text = os.environ.get("OTEL_PYTHON_GRPC_EXCLUDED_SERVICES", "")
    names = [name.strip() for name in text.split(",") if name.strip()]
    excluded = (filters.service_name(name) for name in names)
    return filters.negate(filters.any_of(*excluded)) if names else None

"""Both interceptors, every kind of call and cancelled ones: counters as with grpcio."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from .scene import SERVICE, TARGETS, Serve, Service, at, await_that, by_grpcio, call_everything

LIBRARIES = ("py-grpc-prometheus",)


def counted(serve: Serve) -> tuple[dict[Any, float], dict[Any, float]]:
    """Every counter of the client and of the server, by name and labels."""
    from prometheus_client import CollectorRegistry
    from py_grpc_prometheus.prometheus_client_interceptor import PromClientInterceptor
    from py_grpc_prometheus.prometheus_server_interceptor import PromServerInterceptor

    registries = CollectorRegistry(), CollectorRegistry()
    client = PromClientInterceptor(registry=registries[0])
    server = PromServerInterceptor(
        registry=registries[1], enable_handling_time_histogram=True, log_exceptions=False
    )
    service = Service()

    def counters(registry: Any) -> dict[Any, float]:
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for metric in registry.collect()
            for sample in metric.samples
            if sample.name.endswith(("_total", "_count"))
        }

    with serve(service.handler(), interceptors=[server]) as plain:
        channel = grpc.intercept_channel(plain, client)
        call_everything(channel)
        waiting = plain.unary_unary(f"/{SERVICE}/Wait").future(b"")
        assert service.entered.wait(20)
        waiting.cancel()
        await_that(
            lambda: any(("grpc_code", "CANCELLED") in key for key in counters(registries[1])),
            "a cancelled call is counted",
        )
    return counters(registries[0]), counters(registries[1])


@pytest.fixture(scope="module")
def with_grpcio() -> Any:
    return counted(by_grpcio)


@pytest.mark.parametrize("target", TARGETS)
def test_prometheus_counts_as_with_grpcio(target: str, with_grpcio: Any) -> None:
    client, server = counted(at(target))
    assert (client, server) == with_grpcio
    handled = {key[1:]: value for key, value in server.items() if "handled_total" in key[0]}

    def of(method: str, code: str) -> float:
        labels = ("grpc_code", code), ("grpc_method", method), ("grpc_service", SERVICE)
        return handled[labels + (("grpc_type", "UNARY"),)]  # noqa: RUF005

    assert (of("Echo", "OK"), of("Refuse", "NOT_FOUND")) == (3, 2)

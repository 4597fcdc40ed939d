"""OpenTelemetry's spans, by its own gRPC interceptors, and metrics, for localrpc's calls.

`opentelemetry-instrument` finds it by itself. Otherwise:

    from localrpc.integrations.opentelemetry import LocalrpcInstrumentor
    LocalrpcInstrumentor().instrument()

observe_metrics() is for metrics alone.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Collection, Iterator
from time import monotonic
from typing import Any

import grpc
from opentelemetry import metrics
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

import localrpc
import localrpc.aio
from localrpc import _locks
from localrpc.integrations._metrics import ENDED, ENDED_TEXT, METRICS, by_status
from localrpc.observe import Counts, Endpoint

QUANTILES = (0.5, 0.9, 0.99)


def observe_metrics(meter_provider: MeterProvider | None = None) -> Callable[[], None]:
    """Publish what this process's servers and channels count; return a function to undo it.

    `meter_provider` is OpenTelemetry's; the default is the global one, which may also be set later.
    The core counts all calls of the process, earlier ones too, and those before this call.

    The names are those of gRFC A66 where it has names: grpc.server.call.started and
    grpc.client.attempt.started; the others begin with `localrpc.`. Attributes: `grpc.target` is a
    channel's target, or all of a server's with spaces between them; `role`, of metrics that both
    have, is "server" or "channel"; localrpc.calls_ended has `grpc.status`. Calls are counted by
    target: there is no `grpc.method`.

    Observable instruments cannot carry a histogram. Instead of A66's durations there is the counter
    localrpc.time_in_calls, of the seconds that all ended calls have lasted, and the gauge
    localrpc.call_duration with the attribute `quantile`, 0.5, 0.9 or 0.99: a time in which that
    part of the calls ended that did so in the last minute, or in the time since the collection
    before, if that is longer. Where no call has ended, it has no value.

    A second call for the same provider adds nothing. OpenTelemetry has no way to remove an
    instrument: after undoing, these have no values. Any thread may call it; a forked child counts
    from 0. Raises nothing of its own.
    """
    provider = metrics.get_meter_provider() if meter_provider is None else meter_provider
    with _lock:
        observer = _observers.get(provider)
        if observer is None:
            observer = _observers[provider] = _Observer(provider)
        observer.users += 1
    undone: list[bool] = []

    def undo() -> None:
        with _lock:
            if not undone:
                undone.append(True)
                observer.users -= 1

    return undo


class _Observer:
    """The instruments of one provider, which have values while they have users."""

    def __init__(self, provider: MeterProvider) -> None:
        self.users = 0
        self._recent = _Recent()
        meter = metrics.get_meter("localrpc", localrpc.__version__, provider)
        for metric in METRICS:
            create = (
                meter.create_observable_counter
                if metric.grows
                else meter.create_observable_up_down_counter
            )

            def observe(
                options: CallbackOptions,
                value: Callable[[Counts], float] = metric.value,
                role: str = metric.role,
            ) -> Iterator[Observation]:
                for each in self._endpoints():
                    if not role:
                        yield Observation(value(each.counts), _attributes(each))
                    elif role == each.role:
                        yield Observation(value(each.counts), {"grpc.target": each.target})

            create(metric.name, [observe], unit=metric.unit, description=metric.text)
        meter.create_observable_counter(ENDED, [self._ended], unit="{call}", description=ENDED_TEXT)
        meter.create_observable_counter(
            "localrpc.time_in_calls",
            [self._time],
            unit="s",
            description="How long all ended calls together have lasted.",
        )
        meter.create_observable_gauge(
            "localrpc.call_duration",
            [self._durations],
            unit="s",
            description="A time in which that part of the calls of the last minute have ended.",
        )

    def _endpoints(self) -> tuple[Endpoint, ...]:
        return localrpc.stats() if self.users else ()

    def _ended(self, options: CallbackOptions) -> Iterator[Observation]:
        for each in self._endpoints():
            for status, calls in by_status(each.counts).items():
                yield Observation(calls, {**_attributes(each), "grpc.status": status})

    def _time(self, options: CallbackOptions) -> Iterator[Observation]:
        for each in self._endpoints():
            yield Observation(each.counts.seconds, _attributes(each))

    def _durations(self, options: CallbackOptions) -> Iterator[Observation]:
        for each in self._recent.of(self._endpoints(), monotonic()):
            for quantile in QUANTILES:
                seconds = each.counts.latency.percentile(quantile * 100)
                if seconds is not None:
                    yield Observation(seconds, {**_attributes(each), "quantile": quantile})


class _Recent:
    """What has been counted since a reading that is at least a minute old, if there is one.

    Several readers may ask, each at its own times, so it is not what one of them had before.
    """

    AGE = 60.0

    def __init__(self) -> None:
        self._readings: tuple[tuple[float, dict[tuple[str, str], Counts]], ...] = ()

    def of(self, endpoints: tuple[Endpoint, ...], now: float) -> list[Endpoint]:
        # No lock, which a forked child might find taken: of two readers at once, one's reading is
        # lost, and that leaves others to compare with.
        readings = self._readings
        old = sum(at <= now - self.AGE for at, _ in readings)
        readings = readings[max(0, old - 1) :]
        earlier = readings[0][1] if readings else {}
        read = {(each.role, each.target): each.counts for each in endpoints}
        self._readings = (*readings, (now, read))
        found = []
        for each in endpoints:
            before = earlier.get((each.role, each.target))
            since = each.counts.since(before) if before else each.counts
            found.append(each._replace(counts=since))
        return found


_lock = _locks.Lock()
_observers: weakref.WeakKeyDictionary[MeterProvider, _Observer] = weakref.WeakKeyDictionary()


def _attributes(endpoint: Endpoint) -> dict[str, Any]:
    return {"grpc.target": endpoint.target, "role": endpoint.role}


class LocalrpcInstrumentor(BaseInstrumentor):
    """Traces channels and servers that are created after instrument(), and publishes metrics.

    Of both APIs. The metrics are those of observe_metrics(), for the whole process. Calls at grpc:
    targets are grpcio's: use GrpcInstrumentorClient, GrpcInstrumentorServer, and those with Aio in
    their names, for them.
    OTEL_PYTHON_GRPC_EXCLUDED_SERVICES applies here, too.
    """

    _undo: tuple[Callable[[], None], ...] = ()

    def instrumentation_dependencies(self) -> Collection[str]:
        return ("localrpc",)

    def _instrument(self, **kwargs: Any) -> None:
        """Take tracer_provider, filter_, request_hook and response_hook, as OpenTelemetry's own do,
        and meter_provider.

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
            observe_metrics(kwargs.get("meter_provider")),
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

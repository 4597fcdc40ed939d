"""Health and reflection of a worker's server, where their packages are installed."""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc

T = TypeVar("T")

_logger = logging.getLogger("localrpc.serve")
_NEEDS = "the server has no %s service: pip install 'localrpc[serve]', or say --no-%s"


_LEAVING = (grpc.StatusCode.UNAVAILABLE, "the server stops")


def import_early(*, health: bool, reflection: bool) -> None:
    """Import what the rest of this module needs, where it is installed."""
    for wanted, name in (
        (health, "grpc_health.v1.health"),
        (reflection, "grpc_reflection.v1alpha.reflection"),
    ):
        if wanted:
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(name)


class Health:
    """The health of the whole server and of each service: SERVING until leave().

    leave() ends the calls that watch it: only a client would, and they would take the whole grace.
    """

    def __init__(self, server: Any, services: list[str], *, is_async: bool) -> None:
        """Raises ModuleNotFoundError without grpcio-health-checking."""
        from grpc_health.v1 import (  # type: ignore[import-untyped]
            health,
            health_pb2,
            health_pb2_grpc,
        )

        if is_async:
            from grpc_health.v1._async import (  # type: ignore[import-untyped]
                HealthServicer,
            )
        else:
            HealthServicer = health.HealthServicer
        self._servicer: Any = HealthServicer()
        self._names = ["", *services]
        self._serving = health_pb2.HealthCheckResponse.SERVING
        not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
        self._end_watches: Callable[[], None] | None = None
        if is_async:
            _end_async_watches(self._servicer, not_serving)
        else:
            self._end_watches = _ending_watches(self._servicer, not_serving)
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def begin(self) -> list[Awaitable[None] | None]:
        """Say that all is well."""
        return [self._servicer.set(name, self._serving) for name in self._names]

    def leave(self) -> Awaitable[None] | None:
        """Say that the server serves no longer, whatever is set later."""
        left: Awaitable[None] | None = self._servicer.enter_graceful_shutdown()
        if self._end_watches is not None:
            self._end_watches()
        return left


def _ending_watches(servicer: Any, last: int) -> Callable[[], None]:
    """Return a function that ends the calls of Watch() which have sent the status `last`, and all
    that send it later."""
    watch = servicer.Watch
    sent_last: deque[tuple[Any, Callable[[Any], None]]] = deque()
    is_over = False

    @functools.wraps(watch)  # its attributes, too: it is called with a function that responds
    def begin(request: Any, context: Any, respond: Callable[[Any], None]) -> None:
        def answer(response: Any) -> None:
            respond(response)
            if response is not None and response.status == last:
                sent_last.append((context, respond))

        watch(request, context, answer)
        if is_over:
            end()

    def end() -> None:
        nonlocal is_over
        is_over = True
        while sent_last:
            context, respond = sent_last.popleft()
            context.set_code(_LEAVING[0])
            context.set_details(_LEAVING[1])
            respond(None)

    servicer.Watch = begin
    return end


def _end_async_watches(servicer: Any, last: int) -> None:
    """Have each call of Watch() end once it has sent the status `last`."""
    watch = servicer.Watch

    class Left(Exception):
        pass

    class Watching:
        def __init__(self, context: Any) -> None:
            self._context = context

        async def write(self, response: Any) -> None:
            await self._context.write(response)
            if response.status == last:
                raise Left

        def __getattr__(self, name: str) -> Any:
            return getattr(self._context, name)

    async def begin(request: Any, context: Any) -> None:
        try:
            await watch(request, Watching(context))
        except Left:
            await context.abort(*_LEAVING)

    servicer.Watch = begin


def add_health(server: Any, services: list[str], *, is_async: bool) -> Health | None:
    return _where_installed("health", lambda: Health(server, services, is_async=is_async))


def add_reflection(server: Any, services: list[str]) -> None:
    def add() -> None:
        from grpc_reflection.v1alpha import (  # type: ignore[import-untyped]
            reflection,
        )

        reflection.enable_server_reflection([*services, reflection.SERVICE_NAME], server)

    _where_installed("reflection", add)


def _where_installed(what: str, add: Callable[[], T]) -> T | None:
    try:
        return add()
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith(("grpc_health", "grpc_reflection")):
            raise
        _logger.warning(_NEEDS, what, what)
        return None

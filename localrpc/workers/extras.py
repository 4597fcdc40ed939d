"""Health and reflection of a worker's server, where their packages are installed."""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

_logger = logging.getLogger("localrpc.serve")
_NEEDS = "the server has no %s service: pip install 'localrpc[serve]', or say --no-%s"


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
    """The health of the whole server and of each service: SERVING until leave()."""

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
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def begin(self) -> list[Awaitable[None] | None]:
        """Say that all is well."""
        return [self._servicer.set(name, self._serving) for name in self._names]

    def leave(self) -> Awaitable[None] | None:
        """Say that the server serves no longer, whatever is set later."""
        left: Awaitable[None] | None = self._servicer.enter_graceful_shutdown()
        return left


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

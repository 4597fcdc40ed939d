"""The pytest plugin: the fixture localrpc_serve, over the targets that a test is marked with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from localrpc._later import Later

if TYPE_CHECKING:
    import grpc
else:
    grpc = Later("grpc")

MARKER = "localrpc_target"


class Serve(Protocol):
    """The type of localrpc_serve: like localrpc.testing.serving(), without `with` and target."""

    def __call__(self, *servicers: object, **named: Any) -> grpc.Channel: ...


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", f"{MARKER}(*targets): run a test of localrpc_serve once over each of these"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker(MARKER)
    if marker is not None and MARKER in metafunc.fixturenames:
        # As a mark, which pytest reads next: it overrides the parameters of a fixture.
        metafunc.definition.add_marker(pytest.mark.parametrize(MARKER, marker.args))


@pytest.fixture
def localrpc_target() -> str:
    """The target of localrpc_serve: inproc:, unless a mark or a conftest chooses another."""
    return "inproc:"


@pytest.fixture
def localrpc_serve(localrpc_target: str) -> Iterator[Serve]:
    """Start a server with the given servicers, return a channel; both end with the test."""
    from localrpc.testing import serving

    with ExitStack() as undo:

        def serve(*servicers: object, **named: Any) -> grpc.Channel:
            named.setdefault("target", localrpc_target)
            return undo.enter_context(serving(*servicers, **named))

        yield serve


class ServeAio(Protocol):
    """The type of localrpc_serve_aio: like localrpc.testing.serving_aio(), without target."""

    def __call__(
        self, *servicers: object, **named: Any
    ) -> AbstractAsyncContextManager[grpc.aio.Channel]: ...


@pytest.fixture
def localrpc_serve_aio(localrpc_target: str) -> ServeAio:
    """Serve servicers of coroutines inside a test: `async with localrpc_serve_aio(...)`."""
    from localrpc.testing import serving_aio

    def serve(*servicers: object, **named: Any) -> AbstractAsyncContextManager[grpc.aio.Channel]:
        named.setdefault("target", localrpc_target)
        return serving_aio(*servicers, **named)

    return serve

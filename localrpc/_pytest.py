"""The pytest plugin: the fixture localrpc_serve, over whatever targets a test is marked with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from localrpc._later import Later

if TYPE_CHECKING:
    import grpc
else:
    grpc = Later("grpc")

MARKER = "localrpc_target"


class Serve(Protocol):
    """localrpc.testing.serving() without the `with`; its target is the test's."""

    def __call__(self, *servicers: object, **named: Any) -> grpc.Channel: ...


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", f"{MARKER}(*targets): run a test of localrpc_serve once over each of these"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker(MARKER)
    if marker is not None and MARKER in metafunc.fixturenames:
        metafunc.parametrize(MARKER, marker.args)


@pytest.fixture
def localrpc_target() -> str:
    """Where localrpc_serve serves: inproc:, unless a test is marked or a conftest says other."""
    return "inproc:"


@pytest.fixture
def localrpc_serve(localrpc_target: str) -> Iterator[Serve]:
    """Starts servers with the given servicers, each with a channel to it, until the test ends."""
    from localrpc.testing import serving

    with ExitStack() as undo:

        def serve(*servicers: object, **named: Any) -> grpc.Channel:
            named.setdefault("target", localrpc_target)
            return undo.enter_context(serving(*servicers, **named))

        yield serve

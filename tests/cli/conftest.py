"""Targets with the demo service behind them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest

from tests.conftest import fresh_target

from .scene import served

_numbers = itertools.count(1)


@pytest.fixture(params=["shm-eventfd", "unix", "grpc"])
def demo(request: pytest.FixtureRequest, runtime_directory: str) -> Iterator[str]:
    """Two local transports, and grpcio's."""
    target = fresh_target(request.param, runtime_directory)
    with served(target):
        yield target


@pytest.fixture
def one_demo(one_target: str) -> Iterator[str]:
    """For what does not depend on the transport."""
    with served(one_target):
        yield one_target


@pytest.fixture
def unique_target() -> str:
    """That no process of another run of the tests has: `ps` lists those, too."""
    return f"shm:only-{os.getpid()}-{next(_numbers)}?wakeup=eventfd"


@pytest.fixture
def mute(one_target: str) -> Iterator[str]:
    """A server without reflection."""
    with served(one_target, reflection=False):
        yield one_target

"""A home per test, as in tests/rpc."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import DISTINCT, fresh_target
from tests.gc.scenes import Home


@pytest.fixture
def home(target: str) -> Iterator[Home]:
    """Once for every transport."""
    with Home(target) as one:
        yield one


@pytest.fixture
def distinct_home(distinct_kind: str, runtime_directory: str) -> Iterator[Home]:
    """Without the transports that are much like another."""
    target, unserved = (fresh_target(distinct_kind, runtime_directory) for _ in range(2))
    with Home(target, unserved) as one:
        yield one


@pytest.fixture
def one_home(one_target: str) -> Iterator[Home]:
    """For what does not depend on the transport."""
    with Home(one_target) as one:
        yield one


@pytest.fixture(params=DISTINCT)
def distinct_kind(request: pytest.FixtureRequest) -> str:
    """For tests that need several targets of a kind."""
    kind: str = request.param
    return kind

"""A home per test, as in tests/rpc."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gc.scenes import Home


@pytest.fixture
def home(target: str) -> Iterator[Home]:
    """Once for every transport."""
    with Home(target) as one:
        yield one


@pytest.fixture
def one_home(one_target: str) -> Iterator[Home]:
    """For what does not depend on the transport."""
    with Home(one_target) as one:
        yield one

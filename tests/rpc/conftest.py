"""A house per test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .house import House


@pytest.fixture
def house(any_target: str) -> Iterator[House]:
    """Once for every transport, and over grpcio."""
    with House(any_target) as one:
        yield one


@pytest.fixture
def local_house(target: str) -> Iterator[House]:
    """Once for every transport, where grpcio differs."""
    with House(target) as one:
        yield one


@pytest.fixture
def one_house(one_target: str) -> Iterator[House]:
    """For what does not depend on the transport."""
    with House(one_target) as one:
        yield one

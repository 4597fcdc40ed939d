"""A server in this process, and a stage that calls it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import distinct_two_process_target as target
from tests.peers.journal import Journal
from tests.peers.scenes import Stage
from tests.peers.station import Station

__all__ = ["journal", "stage", "station", "target"]


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def station(target: str, journal: Journal) -> Iterator[Station]:
    one = Station(target, journal)
    yield one
    one.stop()


@pytest.fixture
def stage(station: Station, target: str) -> Iterator[Stage]:
    with Stage(target) as one:
        yield one

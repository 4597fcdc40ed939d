"""A station, and a well-behaved client that must notice nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import distinct_target as target
from tests.forks.conftest import journal, stage
from tests.peers.aio_station import AioStation
from tests.peers.journal import PATIENCE, Journal
from tests.peers.scenes import Stage
from tests.peers.station import Station

__all__ = ["bystander", "journal", "stage", "station", "target"]


@pytest.fixture(params=[Station, AioStation], ids=["sync", "aio"])
def station(
    request: pytest.FixtureRequest, target: str, journal: Journal
) -> Iterator[Station | AioStation]:
    """A server of either API."""
    one = request.param(target, journal)
    yield one
    one.stop()


@pytest.fixture
def bystander(stage: Stage, journal: Journal) -> Iterator[Stage]:
    """Has a call in flight from the beginning to the end of the test."""
    call = stage.channel.unary_stream("/station/trickle")(b"")
    assert next(call) == b"first"
    journal.hear("entered", "trickle")
    yield stage
    assert call.is_active()
    for number in range(10):
        echo = stage.channel.unary_unary("/station/echo")
        assert echo(b"%d" % number, timeout=PATIENCE) == b"%d" % number
    call.cancel()
    assert journal.hear("over", "trickle") == ("over", "trickle", False)

"""A station and a stage per test, as in tests/forks."""

from __future__ import annotations

from tests.conftest import distinct_target as target
from tests.forks.conftest import journal, stage, station

__all__ = ["journal", "stage", "station", "target"]

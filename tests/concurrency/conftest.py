"""A station and a stage per test, as in tests/forks."""

from __future__ import annotations

from tests.forks.conftest import journal, stage, station

__all__ = ["journal", "stage", "station"]

"""Restarts at full length: 10,000 new clients and 50 restarts on each transport.

Nothing in an ordinary run, which has tests/concurrency/test_restarts.py.
"""

from __future__ import annotations

import pytest

from tests.concurrency import test_restarts as restarts
from tests.skips import only_where

pytestmark = [
    only_where(restarts.FULL, "10,000 new clients a transport: ./tests/run --soak"),
    pytest.mark.timeout(1800),
]


def test_no_new_client_of_ten_thousand_is_lost(distinct_target: str) -> None:
    calls = restarts.NEWCOMERS // restarts.CLIENTS + 1
    done = restarts.restart(distinct_target, restarts.Newcomers, calls)
    print(f"{distinct_target}: {done} new clients, {restarts.RESTARTS} restarts")
    assert done >= 10_000

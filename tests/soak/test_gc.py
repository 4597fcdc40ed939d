"""Objects that are dropped are freed, at full length: thousands of channels, no collector.

Nothing in an ordinary run, which has tests/gc with the same scenes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from time import monotonic

import pytest

from tests.gc.channels import CHANNELS
from tests.gc.conftest import distinct_home, distinct_kind
from tests.gc.heap import check
from tests.gc.scenes import CALLS, Home
from tests.skips import only_where

__all__ = ["distinct_home", "distinct_kind"]

DROPPED = 1_000
EACH = 10_000
ENDS = {
    "finished": ("unary", "future", "uploaded_slowly", "stream", "chat"),
    "cancelled": ("future_cancelled", "upload_cancelled", "stream_cancelled", "chat_cancelled"),
    "abandoned": ("future_dropped", "upload_dropped", "stream_dropped", "chat_dropped"),
}
"""Calls of all four kinds; those with a stream of responses have had one of them."""

pytestmark = [
    only_where(
        os.environ.get("LOCALRPC_SOAK") == "full",
        "10,000 calls of each kind a transport: ./tests/run --soak",
    ),
    pytest.mark.timeout(7200),
]


def check_many(target: str, name: str, scene: Callable[[], object], rounds: int) -> None:
    began = monotonic()
    check(scene, rounds)
    print(f"{target}: {rounds} times {name} in {monotonic() - began:.1f} s", flush=True)


def test_no_call_of_ten_thousand_leaves_anything(distinct_home: Home) -> None:
    for scenes in ENDS.values():
        for name in scenes:
            check_many(distinct_home.target, name, partial(CALLS[name], distinct_home), EACH)


def test_no_channel_of_a_thousand_leaves_anything(distinct_home: Home) -> None:
    for name in ("used", "unused", "outlived_by_a_call", "dropped_with_a_call"):
        check_many(distinct_home.target, name, partial(CHANNELS[name], distinct_home), DROPPED)

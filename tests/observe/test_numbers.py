"""Buckets, percentiles, and sums and differences of readings."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrpc.drive.core import lib
from localrpc.observe import Counts, Endpoint, Latency, total
from localrpc.observe.latency import BUCKETS, bound
from localrpc.observe.layout import CODES

latencies = st.dictionaries(st.integers(0, BUCKETS - 1), st.integers(0, 2**40), max_size=9).map(
    lambda calls: Latency(tuple(calls.get(bucket, 0) for bucket in range(BUCKETS)))
)


def latency(**calls: int) -> Latency:
    """Of calls in some buckets: `at7=2` are two in the seventh."""
    return Latency(tuple(calls.get(f"at{bucket}", 0) for bucket in range(BUCKETS)))


def counts(number: int = 0, **named: Any) -> Counts:
    """With `number` everywhere, but for those that are named."""
    same = Counts._make(
        (*[number] * 11, float(number), (number,) * CODES, Latency((number,) * BUCKETS))
    )
    return same._replace(**named)


def endpoint(role: str, target: str, live: bool, since: float, number: int) -> Endpoint:
    return Endpoint(role, target, live, since, counts(number))


def test_bounds_are_those_of_the_core() -> None:
    for bucket in range(BUCKETS):
        least = lib.lr_bucket_from(bucket)
        assert bound(bucket) == least / 1e9
        assert lib.lr_bucket(least) == bucket
        assert bucket == 0 or lib.lr_bucket(least - 1) == bucket - 1
    assert lib.lr_bucket(2**64 - 1) == BUCKETS - 1


@pytest.mark.parametrize(
    ("percent", "bucket"), [(0, 5), (50, 5), (51, 9), (99, 9), (99.5, 200), (100, 200)]
)
def test_a_percentile_is_the_end_of_its_bucket(percent: float, bucket: int) -> None:
    calls = latency(at5=100, at9=98, at200=2)
    assert calls.calls == 200
    assert calls.percentile(percent) == bound(bucket + 1)


def test_a_percentile_of_the_open_bucket_is_where_it_begins() -> None:
    assert Latency((0,) * (BUCKETS - 1) + (1,)).percentile(50) == bound(BUCKETS - 1)


def test_no_call_has_no_percentile() -> None:
    assert latency().percentile(50) is None


@pytest.mark.parametrize("percent", [-1, 100.1, float("nan")])
def test_a_percentile_is_from_0_to_100(percent: float) -> None:
    with pytest.raises(ValueError, match=f"not {percent}"):
        latency().percentile(percent)


def test_buckets_have_all_calls_but_those_of_the_open_one() -> None:
    calls = Latency(tuple(range(BUCKETS)))
    buckets = list(calls.buckets())
    assert [end for end, _ in buckets] == [bound(bucket) for bucket in range(1, BUCKETS)]
    assert buckets[-1][1] == calls.calls - (BUCKETS - 1)


@given(latencies, latencies)
def test_a_difference_undoes_a_sum(one: Latency, other: Latency) -> None:
    assert one.plus(other).since(other) == one
    assert one.plus(other) == other.plus(one)
    assert one.plus(other).calls == one.calls + other.calls


def test_what_is_now_is_no_difference() -> None:
    now = counts(7, connections=1, in_flight=2, waiting=3, streams=4)
    assert now.since(counts(5)) == counts(2, connections=1, in_flight=2, waiting=3, streams=4)
    assert counts(5).plus(counts(2)) == counts(7)


@pytest.mark.parametrize("name", ["begun", "connected"])
def test_a_reading_with_less_is_of_another_engine(name: str) -> None:
    now = counts(7, **{name: 4})
    assert now.since(counts(5)) == now


def test_failed_calls_are_those_that_are_not_ok() -> None:
    assert counts(1).failed == CODES - 1


def test_endpoints_of_one_role_and_target_are_one() -> None:
    found = total(
        [
            endpoint("channel", "shm:a", True, 3.0, 1),
            endpoint("server", "shm:a", True, 5.0, 10),
            endpoint("channel", "shm:a", False, 1.0, 100),
            endpoint("channel", "shm:b", False, 4.0, 1000),
            endpoint("channel", "shm:a", True, 2.0, 10_000),
            endpoint("channel", "shm:b", False, 2.0, 100_000),
        ]
    )
    assert found == (
        endpoint("channel", "shm:a", True, 2.0, 10_101),
        endpoint("server", "shm:a", True, 5.0, 10),
        endpoint("channel", "shm:b", False, 2.0, 101_000),
    )
    assert total(found) == found
    assert total([]) == ()

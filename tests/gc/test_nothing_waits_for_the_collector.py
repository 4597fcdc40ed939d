"""Objects that are dropped are freed with all that they held, without the garbage collector."""

from __future__ import annotations

import threading
import tracemalloc
from functools import partial
from time import monotonic
from typing import Any

import grpc
import pytest

from tests.conftest import fresh_target
from tests.gc.channels import CHANNELS, SERVERS
from tests.gc.heap import check, live, uncollected
from tests.gc.scenes import CALLS, LONG, Home
from tests.rpc.house import PATIENCE, dial


@pytest.mark.parametrize("how", [{}, {"timeout": LONG}], ids=["", "timeout"])
@pytest.mark.parametrize("scene", CALLS)
def test_a_call_leaves_nothing(scene: str, how: dict[str, float], one_home: Home) -> None:
    check(partial(CALLS[scene], one_home, **how))


def test_no_call_leaves_anything(home: Home) -> None:
    """All of them one after the other, which says less when it fails."""

    def all_of_them() -> None:
        for scene in CALLS.values():
            scene(home)

    check(all_of_them, rounds=4)


@pytest.mark.parametrize("scene", CHANNELS)
def test_a_channel_that_is_dropped_leaves_nothing(scene: str, distinct_home: Home) -> None:
    """More of them than mq: could have at a time."""
    check(partial(CHANNELS[scene], distinct_home), rounds=20)


@pytest.mark.parametrize("scene", SERVERS)
def test_a_server_leaves_nothing(scene: str, distinct_kind: str, runtime_directory: str) -> None:
    check(lambda: SERVERS[scene](fresh_target(distinct_kind, runtime_directory)), rounds=5)


def test_a_call_that_is_over_keeps_no_connection(one_home: Home) -> None:
    """One that raises itself is a cycle with its own traceback, as grpcio's are: that must
    not cost more than the call."""
    kept: list[Any] = []

    def fail(call: Any) -> None:
        try:
            next(call)
        except grpc.RpcError:
            pass
        kept.append(call)

    def succeed(call: Any) -> None:
        assert call.code() is grpc.StatusCode.OK
        kept.append(call)

    def one_channel_each() -> None:
        fail(dial(one_home.target).unary_stream("/house/abort")(bytes(1000)))
        succeed(dial(one_home.target).unary_unary("/house/echo").future(bytes(1000)))
        kept.append(dial(one_home.target).unary_unary("/house/echo").with_call(b"x")[1])

    with uncollected():
        one_channel_each()
        before = live()
        for _ in range(5):
            one_channel_each()
        assert len(kept) == 18
        calls = {
            "localrpc.sync.call._MultiThreadedRendezvous",
            "localrpc.drive.call.ClientCall",
            "localrpc.calls.state.CallState",
            "localrpc.metadata.SizeLimits",
        }
        until = monotonic() + PATIENCE
        while (more := set(live() - before)) - calls:
            assert monotonic() < until, more
            threading.Event().wait(0.1)


def test_a_call_that_runs_keeps_no_request(one_home: Home) -> None:
    """Once it has been seen by the server, it cannot be sent again."""
    size = 3_000_000
    method = one_home.channel.unary_stream("/house/drip")
    tracemalloc.start()
    try:
        call = method(bytes(size))
        assert next(call) == b"first"
        one_home.enter()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        tracemalloc.start()
        calls = [method(bytes(size)) for _ in range(2)]
        assert [next(each) for each in calls] == [b"first"] * 2
        # The handlers hold one request each.
        held = tracemalloc.get_traced_memory()[0]
        assert held < 2.5 * size, (before, held)
        del call, calls
    finally:
        tracemalloc.stop()
        one_home.gate.set()

"""A channel over a fork: the child connects again, the parent keeps its connection."""

from __future__ import annotations

import threading
from typing import Any

import grpc
import pytest

import localrpc
from tests.forks.children import Child, try_all_kinds
from tests.peers.journal import PATIENCE, Journal
from tests.peers.scenes import Stage, await_that


def test_an_inherited_channel_connects_anew_in_the_child(stage: Stage) -> None:
    try_all_kinds(stage.channel)
    child = Child(lambda: try_all_kinds(stage.channel))
    try_all_kinds(stage.channel)
    child.join()
    try_all_kinds(stage.channel)


def test_a_channel_that_was_never_used_connects_in_both(stage: Stage) -> None:
    child = Child(lambda: try_all_kinds(stage.channel))
    try_all_kinds(stage.channel)
    child.join()


def test_closing_it_in_the_child_leaves_the_parents_alone(stage: Stage, journal: Journal) -> None:
    call = stage.channel.unary_stream("/station/trickle")(b"")
    assert next(call) == b"first"
    journal.hear("entered", "trickle")

    def work() -> None:
        stage.channel.close()
        with pytest.raises(ValueError, match="closed channel"):
            stage.channel.unary_unary("/station/echo")(b"")

    Child(work).join()
    assert call.is_active()
    try_all_kinds(stage.channel)
    call.cancel()
    assert journal.hear("over", "trickle") == ("over", "trickle", False)


def test_an_inherited_call_fails_as_the_parents(stage: Stage, journal: Journal) -> None:
    call = stage.channel.unary_stream("/station/trickle")(b"")
    assert next(call) == b"first"

    def work() -> None:
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.CANCELLED
        assert error.details() == "Call cancelled in fork child"

    Child(work).join()
    assert call.is_active()
    call.cancel()


def test_an_inherited_call_in_which_a_thread_waited_does_not_hang(
    stage: Stage, journal: Journal
) -> None:
    call = stage.channel.unary_stream("/station/trickle")(b"")
    assert next(call) == b"first"

    def wait() -> None:
        with pytest.raises(grpc.RpcError):
            next(call)

    waiting = threading.Thread(target=wait)
    waiting.start()
    await_that(lambda: call._call._reading, "a thread in next()")

    def work() -> None:
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.CANCELLED

    Child(work).join()
    call.cancel()
    waiting.join(PATIENCE)
    assert not waiting.is_alive()


def test_forking_while_other_threads_call(stage: Stage) -> None:
    over = threading.Event()
    failures: list[BaseException] = []

    def call(number: int) -> None:
        echo = stage.channel.unary_unary("/station/echo")
        mirror = stage.channel.stream_stream("/station/mirror")
        try:
            while not over.is_set():
                assert echo(b"%d" % number, timeout=PATIENCE) == b"%d" % number
                assert list(mirror(iter([b"x"] * 3), timeout=PATIENCE)) == [b"x"] * 3
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=call, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    children = [Child(lambda: try_all_kinds(stage.channel)) for _ in range(8)]
    for child in children:
        child.join()
    over.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert not failures


def test_a_subscriber_in_the_parent_is_still_notified(target: str, stage: Stage) -> None:
    states: list[grpc.ChannelConnectivity] = []
    with localrpc.insecure_channel(target) as channel:
        channel.subscribe(states.append, try_to_connect=True)
        grpc.channel_ready_future(channel).result(PATIENCE)
        Child(lambda: try_all_kinds(channel)).join()
        try_all_kinds(channel)
        before = len(states)
        channel.subscribe(states.append)
        await_that(lambda: len(states) > before, "the state of a live channel")
        assert states[-1] is grpc.ChannelConnectivity.READY

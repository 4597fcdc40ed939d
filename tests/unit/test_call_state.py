"""The state of a client's call, every event in every phase, with nothing but bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from localrpc.calls.state import CallState, Then
from localrpc.calls.texts import BAD_RESPONSE, LOCALLY_CANCELLED, TOO_MANY
from localrpc.metadata import SizeLimits
from localrpc.wire import codec

Code = grpc.StatusCode
HEADERS = codec.encode_metadata((("a", "b"),))
STATUS = codec.encode_trailer(0, "", (("c", "d"),))
FAILED = codec.encode_trailer(5, "not there", ())
BROKEN = b"\xff\xff\xff\xff"


def a_stream() -> CallState:
    return CallState(SizeLimits(8192, 16384), streams=True)


def a_unary_call() -> CallState:
    return CallState(SizeLimits(8192, 16384), streams=False)


def facts(state: CallState) -> list[Any]:
    return [
        state.code,
        state.details,
        state.debug_error_string,
        state.cancelled,
        state.initial_metadata,
        state.trailing_metadata,
        list(state.messages),
        state.response,
    ]


def test_a_stream_from_beginning_to_end() -> None:
    state = a_stream()
    assert state.take_headers(HEADERS) is Then.GO_ON
    assert state.take_messages([b"1", b"2"]) is Then.GO_ON
    assert state.code is None
    assert state.take_status(STATUS) is Then.RELEASE
    assert facts(state)[:3] == [Code.OK, "", ""]
    assert state.initial_metadata == (("a", "b"),)
    assert state.trailing_metadata == (("c", "d"),)
    assert list(state.messages) == [b"1", b"2"]  # they came before the end


def test_a_unary_call_keeps_its_answer() -> None:
    state = a_unary_call()
    assert state.take_response("answer", 1, False) is Then.GO_ON
    assert state.take_status(STATUS) is Then.RELEASE
    assert (state.code, state.response) == (Code.OK, "answer")


def test_a_failure_clears_the_messages() -> None:
    state = a_stream()
    state.take_messages([b"1"])
    assert state.take_status(FAILED) is Then.RELEASE
    assert facts(state) == [
        Code.NOT_FOUND,
        "not there",
        "NOT_FOUND:not there",
        False,
        (),
        (),
        [],
        None,
    ]


def test_a_reset_is_known_to_the_peer() -> None:
    state = a_stream()
    assert state.take_reset(Code.ABORTED, "enough") is Then.RELEASE
    assert facts(state)[:3] == [Code.ABORTED, "enough", "ABORTED:enough"]


def test_a_cancelled_call_says_that_this_side_cancelled_it() -> None:
    state = a_stream()
    assert state.end(*LOCALLY_CANCELLED, cancelled=True) is Then.CANCEL
    assert state.cancelled


@pytest.mark.parametrize("count", [2, 3])
def test_a_unary_call_has_one_response(count: int) -> None:
    state = a_unary_call()
    assert state.take_response("first", count, False) is Then.CANCEL
    assert (state.code, state.details) == TOO_MANY
    state = a_unary_call()
    state.take_response("first", 1, False)
    assert state.take_response("second", 1, False) is Then.CANCEL
    assert (state.code, state.details) == TOO_MANY


def test_a_response_that_cannot_be_read() -> None:
    state = a_unary_call()
    assert state.take_response(None, 1, True) is Then.CANCEL
    assert (state.code, state.details) == BAD_RESPONSE


def test_broken_metadata_ends_the_call() -> None:
    state = a_stream()
    assert state.take_headers(BROKEN) is Then.CANCEL  # the peer has not ended it
    assert state.code is Code.INTERNAL
    state = a_stream()
    assert state.take_status(BROKEN) is Then.RELEASE  # it had ended for the peer
    assert state.code is Code.INTERNAL


@pytest.mark.parametrize("take", [CallState.take_headers, CallState.take_status])
def test_too_much_metadata_ends_the_call(take: Callable[[CallState, bytes], Then]) -> None:
    pairs = (("a", "b" * 20_000),)
    headers = take is CallState.take_headers
    block = codec.encode_metadata(pairs) if headers else codec.encode_trailer(0, "", pairs)
    state = a_stream()
    assert take(state, block) is (Then.CANCEL if headers else Then.RELEASE)
    assert state.code is Code.RESOURCE_EXHAUSTED


EVENTS: dict[str, Callable[[CallState], Then]] = {
    "messages": lambda state: state.take_messages([b"late"]),
    "response": lambda state: state.take_response("late", 1, False),
    "responses": lambda state: state.take_response("late", 2, False),
    "bad response": lambda state: state.take_response(None, 1, True),
    "headers": lambda state: state.take_headers(HEADERS),
    "broken headers": lambda state: state.take_headers(BROKEN),
    "status": lambda state: state.take_status(STATUS),
    "failure": lambda state: state.take_status(FAILED),
    "broken status": lambda state: state.take_status(BROKEN),
    "reset": lambda state: state.take_reset(Code.ABORTED, "late"),
    "end": lambda state: state.end(*LOCALLY_CANCELLED, cancelled=True),
}
ENDS = ("responses", "bad response", "broken headers", "status", "failure", "broken status",
        "reset", "end")  # fmt: skip


@pytest.mark.parametrize("late", EVENTS)
@pytest.mark.parametrize("end", ENDS)
def test_events_after_the_end_change_nothing(end: str, late: str) -> None:
    state = a_unary_call()
    assert EVENTS[end](state) in (Then.RELEASE, Then.CANCEL)
    before = facts(state)
    assert EVENTS[late](state) is Then.GO_ON
    assert facts(state) == before


def test_a_call_that_is_over_from_the_start() -> None:
    state = CallState.over("answer", (), ())
    before = facts(state)
    assert before[0] is Code.OK
    for event in EVENTS.values():
        assert event(state) is Then.GO_ON
    assert facts(state) == before

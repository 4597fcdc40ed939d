"""The state of a call that is served: every event in every stage, with nothing but bytes."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from localrpc import status
from localrpc.calls import texts
from localrpc.calls.answer import AnswerState, Reply, Stage, Then
from localrpc.wire import codec

Code = grpc.StatusCode


def opened() -> AnswerState:
    return AnswerState()


def chosen() -> AnswerState:
    state = AnswerState()
    assert isinstance(state.finish(b"first"), Reply)
    return state


def sent() -> AnswerState:
    state = chosen()
    state.sent()
    return state


def dropped() -> AnswerState:
    state = AnswerState()
    assert state.drop() is Then.RELEASE
    return state


def gone() -> AnswerState:
    state = AnswerState()
    assert state.end() == (True, ())
    return state


STAGES: dict[Stage, Callable[[], AnswerState]] = {
    Stage.OPEN: opened,
    Stage.CHOSEN: chosen,
    Stage.SENT: sent,
    Stage.DROPPED: dropped,
    Stage.GONE: gone,
}

# The stage after an event, and what it returns: a reply's code, or what is to be done.
EVENTS: dict[str, Callable[[AnswerState], Any]] = {
    "finish": lambda state: state.finish(b"answer"),
    "refuse": lambda state: state.refuse(status.INTERNAL, "it failed"),
    "drop": AnswerState.drop,
    "sent": AnswerState.sent,
    "end": lambda state: state.end()[0],
}
NOTHING, RELEASE = Then.NOTHING, Then.RELEASE
TABLE: dict[str, dict[Stage, tuple[Stage, Any]]] = {
    "finish": {
        Stage.OPEN: (Stage.CHOSEN, 0),
        Stage.CHOSEN: (Stage.CHOSEN, NOTHING),
        Stage.SENT: (Stage.SENT, NOTHING),
        Stage.DROPPED: (Stage.DROPPED, RELEASE),
        Stage.GONE: (Stage.GONE, RELEASE),
    },
    "refuse": {
        Stage.OPEN: (Stage.CHOSEN, status.INTERNAL),
        Stage.CHOSEN: (Stage.CHOSEN, NOTHING),
        Stage.SENT: (Stage.SENT, NOTHING),
        Stage.DROPPED: (Stage.DROPPED, RELEASE),
        Stage.GONE: (Stage.GONE, RELEASE),
    },
    "drop": {
        Stage.OPEN: (Stage.DROPPED, RELEASE),
        Stage.CHOSEN: (Stage.CHOSEN, NOTHING),
        Stage.SENT: (Stage.SENT, RELEASE),
        Stage.DROPPED: (Stage.DROPPED, RELEASE),
        Stage.GONE: (Stage.GONE, RELEASE),
    },
    "sent": {
        Stage.OPEN: (Stage.OPEN, None),
        Stage.CHOSEN: (Stage.SENT, None),
        Stage.SENT: (Stage.SENT, None),
        Stage.DROPPED: (Stage.DROPPED, None),
        Stage.GONE: (Stage.GONE, None),
    },
    "end": {
        Stage.OPEN: (Stage.GONE, True),
        Stage.CHOSEN: (Stage.GONE, True),
        Stage.SENT: (Stage.SENT, False),
        Stage.DROPPED: (Stage.DROPPED, False),
        Stage.GONE: (Stage.GONE, False),
    },
}


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("event", EVENTS)
def test_every_event_in_every_stage(event: str, stage: Stage) -> None:
    state = STAGES[stage]()
    assert state.stage is stage
    result = EVENTS[event](state)
    if isinstance(result, Reply):
        result = result.code
    assert (state.stage, result) == TABLE[event][stage]


@pytest.mark.parametrize("stage", Stage)
def test_properties_of_each_stage(stage: Stage) -> None:
    state = STAGES[stage]()
    assert state.chosen == (stage in (Stage.CHOSEN, Stage.SENT))
    assert state.over == (stage in (Stage.SENT, Stage.DROPPED, Stage.GONE))


def test_a_new_state_shares_nothing_with_another() -> None:
    first, second = AnswerState(), AnswerState()
    first.code, first.details, first.initial_allowed = Code.ABORTED, b"x", False
    first.add_callbacks([lambda: None])
    first.new_error()
    assert (second.code, second.details, second.initial_allowed) == (None, None, True)
    assert not second.watched
    assert second.errors() == []


# ---- what is sent ----


def reply(then: Reply | Then) -> tuple[int, str, Any, bytes | None]:
    assert isinstance(then, Reply)
    code, details, trailing = codec.decode_trailer(then.trailer)
    assert code == then.code
    return code, details, trailing, then.message


def test_an_answer_is_ok_without_details_whatever_the_handler_set() -> None:
    state = AnswerState()
    state.code, state.details = Code.OK, b"fine"
    state.trailing_metadata = (("k", "v"),)
    assert reply(state.finish(b"m")) == (0, "", (("k", "v"),), b"m")


def test_a_status_goes_without_the_message() -> None:
    state = AnswerState()
    state.code, state.details = Code.NOT_FOUND, b"no such thing"
    assert reply(state.finish(b"m")) == (Code.NOT_FOUND.value[0], "no such thing", (), None)


@pytest.mark.parametrize("code", ["NOT_FOUND", 5, object()])
def test_what_is_not_a_status_code_is_unknown(code: Any) -> None:
    state = AnswerState()
    state.code = code
    assert reply(state.finish(b"m"))[0] == status.UNKNOWN


def test_a_status_set_by_the_handler_takes_precedence_over_its_failure() -> None:
    state = AnswerState()
    state.code = Code.DATA_LOSS
    assert reply(state.refuse(status.INTERNAL, "it failed"))[:2] == (
        Code.DATA_LOSS.value[0],
        "it failed",
    )
    state = AnswerState()
    state.details = b"its own"
    assert reply(state.refuse(status.INTERNAL, "it failed"))[:2] == (status.INTERNAL, "its own")


def test_details_that_are_not_utf8_are_sent_with_replacements() -> None:
    state = AnswerState()
    state.code, state.details = Code.ABORTED, b"\xffx"
    assert reply(state.finish(None))[1] == "\N{REPLACEMENT CHARACTER}x"


def test_abort_chooses_code_and_details() -> None:
    state = AnswerState()
    state.abort(Code.ABORTED, "stop")
    assert (state.aborted, state.stage) == (True, Stage.OPEN)
    assert reply(state.refuse(*texts.ABORTED))[:2] == (Code.ABORTED.value[0], "stop")


def test_abort_with_ok_is_unknown_without_details() -> None:
    state = AnswerState()
    state.abort(Code.OK, "fine")
    assert reply(state.refuse(*texts.ABORTED))[:2] == (status.UNKNOWN, "")


@pytest.mark.parametrize(
    ("trailing", "code", "details"),
    [
        ((("UPPER CASE", "v"),), status.INTERNAL, "Invalid metadata"),
        (7, status.INTERNAL, "Invalid metadata"),
        ((("k", "v" * 70_000),), status.RESOURCE_EXHAUSTED, None),
    ],
)
def test_trailing_metadata_that_cannot_be_sent_is_the_end(
    trailing: Any, code: int, details: str | None
) -> None:
    state = AnswerState()
    state.trailing_metadata = trailing
    number, text, pairs, message = reply(state.finish(b"m"))
    assert (number, pairs, message) == (code, (), None)
    assert text == details if details else text


# ---- initial metadata ----


def test_initial_metadata_is_sent_once() -> None:
    state = AnswerState()
    block = state.take_initial_metadata((("k", "v"),))
    assert isinstance(block, bytes)
    assert codec.decode_metadata(block) == (("k", "v"),)
    with pytest.raises(ValueError, match="Initial metadata no longer allowed!"):
        state.take_initial_metadata(())


def test_initial_metadata_after_the_status_is_not_sent() -> None:
    state = chosen()
    assert state.take_initial_metadata(()) is Then.NOTHING
    with pytest.raises(ValueError):
        state.take_initial_metadata(())


def test_initial_metadata_without_a_length_changes_nothing() -> None:
    state = AnswerState()
    with pytest.raises(TypeError):
        state.take_initial_metadata(iter(()))  # type: ignore[arg-type]
    assert state.initial_allowed
    assert state.stage is Stage.OPEN


def test_initial_metadata_that_cannot_be_sent_is_the_end_without_trailers() -> None:
    state = AnswerState()
    state.trailing_metadata = (("k", "v"),)
    then = state.take_initial_metadata((("UPPER CASE", "v"),))
    assert not isinstance(then, bytes)
    assert reply(then) == (status.INTERNAL, "Invalid metadata", (), None)


# ---- callbacks of the end ----


def callbacks() -> tuple[Callable[[], None], Callable[[], None]]:
    return lambda: None, lambda: None


def test_callbacks_are_taken_once() -> None:
    state = AnswerState()
    first, second = callbacks()
    assert state.add_callbacks([first])
    assert not state.add_callbacks([second])
    assert state.watched
    assert state.end() == (True, [first, second])
    assert state.end() == (False, ())
    assert not state.watched


def test_callbacks_can_be_taken_back_until_the_end_has_them() -> None:
    state = AnswerState()
    first, second = callbacks()
    state.add_callbacks([first])
    state.add_callbacks([second])
    assert state.remove_callbacks([first])
    assert state.end() == (True, [second])
    assert not state.remove_callbacks([second])


def test_the_errors_that_mean_a_clients_end_are_not_held() -> None:
    state = AnswerState()
    error = state.new_error()
    known = weakref.ref(error)
    assert state.errors() == [error]
    del error
    gc.collect()
    assert known() is None
    assert state.errors() == []

"""The stages of a server: each event in each stage."""

from __future__ import annotations

from itertools import product

import pytest

from localrpc.calls.lifecycle import TRANSITIONS, Event, Lifecycle, Stage

MOVES = {
    (Stage.NEW, Event.START): Stage.STARTED,
    (Stage.NEW, Event.END): Stage.STOPPED,
    (Stage.STARTED, Event.STOP): Stage.STOPPING,
    (Stage.STARTED, Event.END): Stage.STOPPED,
    (Stage.STOPPING, Event.END): Stage.STOPPED,
}
WAYS: dict[Stage, tuple[Event, ...]] = {
    Stage.NEW: (),
    Stage.STARTED: (Event.START,),
    Stage.STOPPING: (Event.START, Event.STOP),
    Stage.STOPPED: (Event.START, Event.STOP, Event.END),
}
"""What brings a server to a stage."""


def happen(life: Lifecycle, event: Event) -> object:
    if event is Event.START:
        return life.start()
    return life.stop() if event is Event.STOP else life.side_ended()


@pytest.mark.parametrize(("stage", "event"), list(product(Stage, Event)))
def test_an_event_moves_a_server_on_or_changes_nothing(stage: Stage, event: Event) -> None:
    life = Lifecycle()
    for way in WAYS[stage]:
        happen(life, way)
    assert life.stage is stage
    if stage is Stage.STOPPED and event is Event.END:
        return  # each side ends once
    told = happen(life, event)
    assert life.stage is MOVES.get((stage, event), stage)
    assert told is (True if event is Event.END else stage)


def test_every_stage_says_what_follows() -> None:
    assert set(TRANSITIONS) == set(Stage)


def test_a_server_has_stopped_when_its_last_side_has_ended() -> None:
    life = Lifecycle()
    life.add_side()
    life.start()
    life.stop()
    seen = [(life.side_ended(), life.stage) for _ in range(2)]
    assert seen == [(False, Stage.STOPPING), (True, Stage.STOPPED)]

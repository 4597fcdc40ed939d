"""Invariant: every pair of a phase and an event moves or is refused, and ENDED is final."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localrpc.errors import LocalProtocolError
from localrpc.wire.states import TRANSITIONS, Event, Phase, advance


@pytest.mark.parametrize(("phase", "event"), list(product(Phase, Event)))
def test_every_pair_moves_or_is_refused(phase: Phase, event: Event) -> None:
    if event in TRANSITIONS[phase]:
        assert advance(phase, event) is TRANSITIONS[phase][event]
    else:
        with pytest.raises(LocalProtocolError, match=event.name):
            advance(phase, event)


@given(st.lists(st.sampled_from(Event)))
def test_no_message_follows_the_end_of_its_half(events: list[Event]) -> None:
    phase = Phase.WAITING
    over: set[Event] = set()
    for event in events:
        try:
            phase = advance(phase, event)
        except LocalProtocolError:
            continue
        assert event not in over
        if event is Event.SEND_END:
            over |= {Event.SEND, Event.SEND_END}
        elif event is Event.RECEIVE_END:
            over |= {Event.RECEIVE, Event.RECEIVE_END}
        elif phase is Phase.ENDED:
            over |= set(Event)

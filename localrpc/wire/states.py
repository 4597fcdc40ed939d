"""The life of a call as one side sees it: which event may follow which.

Both roles share the table. A half that has ended only ever stays so, and ENDED
is final: whatever comes later belongs to nobody and is dropped by the core
before it gets here.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType

from localrpc.errors import LocalProtocolError


class Phase(Enum):
    """`LOCAL_DONE`: this side sends no more messages; `REMOTE_DONE`: the other one."""

    WAITING = auto()
    OPEN = auto()
    LOCAL_DONE = auto()
    REMOTE_DONE = auto()
    BOTH_DONE = auto()
    ENDED = auto()


class Event(Enum):
    """FINISH is a status that came or went; ABORT any other end (reset, death, deadline)."""

    START = auto()
    SEND = auto()
    SEND_END = auto()
    RECEIVE = auto()
    RECEIVE_END = auto()
    FINISH = auto()
    ABORT = auto()


_FINAL = {Event.FINISH: Phase.ENDED, Event.ABORT: Phase.ENDED}

TRANSITIONS: Mapping[Phase, Mapping[Event, Phase]] = MappingProxyType(
    {
        Phase.WAITING: {Event.START: Phase.OPEN, Event.ABORT: Phase.ENDED},
        Phase.OPEN: {
            Event.SEND: Phase.OPEN,
            Event.RECEIVE: Phase.OPEN,
            Event.SEND_END: Phase.LOCAL_DONE,
            Event.RECEIVE_END: Phase.REMOTE_DONE,
            **_FINAL,
        },
        Phase.LOCAL_DONE: {
            Event.RECEIVE: Phase.LOCAL_DONE,
            Event.RECEIVE_END: Phase.BOTH_DONE,
            **_FINAL,
        },
        Phase.REMOTE_DONE: {
            Event.SEND: Phase.REMOTE_DONE,
            Event.SEND_END: Phase.BOTH_DONE,
            **_FINAL,
        },
        Phase.BOTH_DONE: _FINAL,
        Phase.ENDED: {},
    }
)


def advance(phase: Phase, event: Event) -> Phase:
    """Raises LocalProtocolError for an event that cannot happen in `phase`."""
    try:
        return TRANSITIONS[phase][event]
    except KeyError:
        raise LocalProtocolError(f"a call that is {phase.name} cannot {event.name}") from None

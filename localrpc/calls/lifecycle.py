"""The stages of a server, from its creation to its end."""

from __future__ import annotations

from enum import Enum, auto


class Stage(Enum):
    """How far a server has come; the value is a word for people."""

    NEW = "not started"
    STARTED = "serving"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Event(Enum):
    """What happens to a server."""

    START = auto()
    STOP = auto()
    END = auto()
    """Its last call has ended, on all of its sides."""


TRANSITIONS = {
    Stage.NEW: {Event.START: Stage.STARTED, Event.END: Stage.STOPPED},
    Stage.STARTED: {Event.STOP: Stage.STOPPING, Event.END: Stage.STOPPED},
    Stage.STOPPING: {Event.END: Stage.STOPPED},
    Stage.STOPPED: {},
}
"""The next stage; an event without one changes nothing."""


class Lifecycle:
    """The stage of one server. The owner calls these methods one at a time.

    A server has a local side, and one for its `grpc:` targets once it has such; it has stopped
    when all of its sides have ended.
    """

    def __init__(self) -> None:
        self.stage = Stage.NEW
        self._sides = 1

    def start(self) -> Stage:
        """Start a new server. Return the stage before: a server starts only if that is NEW."""
        return self._move(Event.START)

    def stop(self) -> Stage:
        """Begin to stop a started server. Return the stage before."""
        return self._move(Event.STOP)

    def add_side(self) -> None:
        self._sides += 1

    def side_ended(self) -> bool:
        """Note that one side has served its last call. Return True if that was the last side."""
        self._sides -= 1
        if self._sides:
            return False
        self._move(Event.END)
        return True

    def _move(self, event: Event) -> Stage:
        before = self.stage
        self.stage = TRANSITIONS[before].get(event, before)
        return before

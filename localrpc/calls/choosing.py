"""Which connection of a group of workers gets a call, and which workers are connected to.

Knows no session, lock, thread or clock. Times are nanoseconds on one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

_SMOOTHED_OVER = 8
"""Completions."""
_STALE = 50_000_000
"""For so long no call had to be chosen for: what was measured before says nothing now."""
_TRIED_AFTER = 100_000_000
_TRIED_AGAIN_AFTER = 10_000_000_000
"""So long a worker is passed over for what it shows before it is tried with a call; and at most,
after twice the time each time that it has not answered any."""


class Shown(NamedTuple):
    """Where what is in the load that a worker shows to its clients: calls of all of them, the
    smoothed time between completions, and when the first call came since the last; 0: none did."""

    calls: int = 0
    streams: int = 1
    pace: int = 2
    since: int = 3


_AT = Shown()
_UNSHOWN = (0, 0, 0, 0)


class Load:
    """What a channel has in progress on one of its connections: `calls` and `streams` have as many
    items. Where several threads change them they are lists of nothing, because append() and pop()
    are atomic and `+=` is not. `shown` is what the worker says of the calls of all its clients.
    """

    __slots__ = (
        "_pace",
        "_passed",
        "_passed_with",
        "_patience",
        "_since",
        "_smoothed",
        "calls",
        "shown",
        "streams",
    )

    def __init__(
        self, calls: Any = None, streams: Any = None, shown: Sequence[int] | None = None
    ) -> None:
        self.calls: Any = [] if calls is None else calls
        self.streams: Any = [] if streams is None else streams
        self.shown = _UNSHOWN if shown is None else shown
        self._smoothed = 0
        self._since = 0
        """When the last call was completed, or when it was last seen without a call."""
        self._passed = 0
        """Since when others have been chosen, without a call here, or 0."""
        self._passed_with = 0
        """The most calls that it has shown since."""
        self._patience = _TRIED_AFTER
        self._pace = 0
        """That it showed when it was last tried: it has another once it has answered."""

    def completed(self, now: int, count: int = 1) -> None:
        """Note that so many calls have ended. Others may be in progress."""
        each = (now - self._since) // count
        self._smoothed += (each - self._smoothed) * count // (_SMOOTHED_OVER + count - 1)
        self._since = now

    def was_idle(self, now: int) -> None:
        """Note that it has answered all."""
        self._since = now

    def forget(self, now: int) -> None:
        """Measure anew."""
        self._smoothed = 0
        self._since = now

    def is_idle(self) -> bool:
        """Return True if the worker has no call, as far as is known."""
        return not self.calls and not self.shown[0]

    def all_streams(self) -> int:
        """Return how many streams the worker has, as far as is known."""
        return max(len(self.streams), self.shown[_AT.streams])

    def all_calls(self) -> int:
        """Return how many calls the worker has, as far as is known."""
        return max(len(self.calls), self.shown[_AT.calls])

    def cost(self, now: int) -> int:
        """Return about how long one more call would take here."""
        shown = self.shown
        if shown[_AT.calls]:
            pace, since = shown[_AT.pace], shown[_AT.since] or now
        else:
            pace, since = self._smoothed, self._since
        return (self.all_calls() + 1) * max(pace, now - since, 1)

    def chosen(self) -> None:
        """Note that it gets a call."""
        self._passed = 0
        self._pace = self.shown[_AT.pace]

    def passed_over(self, now: int) -> bool:
        """Note that another one costs less; return True if this one is to be tried all the same.

        What it shows may be of calls that only wait for something. So a call finds out, of one
        channel at a time: while it shows more calls, others have tried.
        """
        calls = self.shown[_AT.calls]
        if self.shown[_AT.pace] != self._pace:
            self._patience = _TRIED_AFTER
        if self.calls or not calls:
            self._passed = 0
        elif not self._passed or calls > self._passed_with:
            self._passed, self._passed_with = now, calls
        elif now - self._passed >= self._patience:
            self._patience = min(2 * self._patience, _TRIED_AGAIN_AFTER)
            return True
        return False


class Chooser:
    """Chooses among loads, by their positions. For several threads at a time: a choice may be
    made of numbers that are no longer so, and is then not the best."""

    def __init__(self) -> None:
        self._last = 0
        """When a choice was last made."""

    def for_call(self, loads: Sequence[Load], now: int) -> tuple[int, bool]:
        """Return which one gets a call, and whether all of them were busy.

        One without calls gets it at once, the first of several. Otherwise the one that will
        answer first, by the time between its answers and the calls that it has.
        """
        if now - self._last > _STALE:
            for load in loads:
                load.forget(now)
        self._last = now
        for position, load in enumerate(loads):
            if load.is_idle():
                load.was_idle(now)
                return position, False
        costs = [load.cost(now) for load in loads]
        best = costs.index(min(costs))
        for position, load in enumerate(loads):
            if position != best and load.passed_over(now):
                best = position
                break
        loads[best].chosen()
        return best, True

    def for_stream(self, loads: Sequence[Load]) -> tuple[int, bool]:
        """Return which one gets a stream, where it stays: the one with the fewest, and of those the
        one with the fewest calls; and whether all of them had some."""
        counts = [(load.all_streams(), load.all_calls()) for load in loads]
        fewest = min(counts)
        return counts.index(fewest), fewest[0] > 0


_MISSES = 2
"""Numbers in a row without a worker: there are none above."""
MOST = 32
"""Workers of a group that one channel connects to."""


class Search:
    """A search for workers without a connection, by their numbers."""

    def __init__(self) -> None:
        self._number = 0
        self._missed = 0
        self.has_found = False

    def next(self, connected: Collection[int]) -> int | None:
        """Return the number to try next; None if the search is over."""
        if self._missed >= _MISSES or len(connected) >= MOST:
            return None
        self._number += 1
        while self._number in connected:
            self._number += 1
        return self._number

    def tried(self, connected: Collection[int], *, found: bool) -> None:
        """Note the result for the last number."""
        self.has_found |= found
        if found or any(each > self._number for each in connected):
            self._missed = 0
        else:
            self._missed += 1

"""How long connecting may take."""

from __future__ import annotations

import math
import select
from time import monotonic


class Attempt:
    """An attempt to connect: it ends at a moment, or before that once it is given up.

    `until` is a time of time.monotonic(). `wake` is a descriptor of the caller's, which is
    readable from the moment at which the attempt is given up.
    """

    def __init__(self, until: float = math.inf, wake: int | None = None) -> None:
        self.until = until
        self._wake = wake

    def within(self, seconds: float) -> Attempt:
        """Return an attempt with this cancellation, but at most so long from now."""
        return Attempt(min(self.until, monotonic() + seconds), self._wake)

    def left(self) -> float:
        """Seconds, 0 once it is over."""
        return max(self.until - monotonic(), 0)

    def poll(self, poller: select.poll, most: float = math.inf) -> list[tuple[int, int]]:
        """Return the events of `poller` within `most` seconds; none once the attempt is over."""
        left = min(self.left(), most)
        if left <= 0:
            return []
        if self._wake is not None:
            poller.register(self._wake, select.POLLIN)
        events = poller.poll(None if left == math.inf else left * 1000 + 1)
        if any(fd == self._wake for fd, _ in events):
            self.until = -math.inf
            return []
        return events

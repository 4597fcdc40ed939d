"""How long calls have lasted, as counts of times in buckets that grow with the time.

The buckets are those of _core/src/engine/count.c, after HdrHistogram: the first holds all times
below 256 ns, and from there on eight divide each power of two. The last, from 240 s on, is open.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

FIRST = 8
"""The first bucket ends at 2 to the power of this, in nanoseconds."""
BITS = 3
"""Each power of two has 2 to the power of this many buckets."""
BUCKETS = 240


def bound(bucket: int) -> float:
    """Return where a bucket begins, in seconds: the one before it holds no time as long."""
    if bucket <= 0:
        return 0.0
    power, part = divmod(bucket - 1, 1 << BITS)
    return float(((1 << BITS) + part) << (FIRST + power - BITS)) / 1e9


class Latency(NamedTuple):
    """The ended calls by how long they have lasted, from their first frame to their release.

    A call is in one of BUCKETS buckets: of those below 256 ns in the first, above in one of eight
    for each power of two.
    """

    counted: tuple[int, ...]
    """Calls in each bucket."""

    @property
    def calls(self) -> int:
        """How many there are in all."""
        return sum(self.counted)

    def percentile(self, percent: float) -> float | None:
        """Return a time, in seconds, that `percent` of the calls did not exceed; None if none has
        ended. It is the end of that time's bucket, so at most 1/8 too long; of the last bucket,
        which has no end, its beginning.

        Raises ValueError if `percent` is not from 0 to 100.
        """
        if not 0 <= percent <= 100:
            raise ValueError(f"a percentile is from 0 to 100, not {percent}")
        calls = self.calls
        if not calls:
            return None
        least = max(1.0, calls * percent / 100)
        for bucket, so_far in enumerate(accumulate(self.counted)):
            if so_far >= least:
                return bound(min(bucket + 1, BUCKETS - 1))
        raise AssertionError  # the last sum is `calls`

    def buckets(self) -> Iterator[tuple[float, int]]:
        """Yield the end of each bucket but the last, in seconds, and how many calls lasted less."""
        for bucket, so_far in enumerate(accumulate(self.counted[:-1])):
            yield bound(bucket + 1), so_far

    def plus(self, other: Latency) -> Latency:
        """Return the calls of both."""
        pairs = zip(self.counted, other.counted, strict=True)
        return Latency(tuple(one + another for one, another in pairs))

    def since(self, earlier: Latency) -> Latency:
        """Return the calls that have ended since an earlier reading."""
        pairs = zip(self.counted, earlier.counted, strict=True)
        return Latency(tuple(max(0, now - before) for now, before in pairs))

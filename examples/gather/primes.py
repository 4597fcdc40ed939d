"""The primes of a range by a sieve, and the combination of several ranges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import isqrt


@dataclass(frozen=True)
class Found:
    """A summary of the primes of a range; `first` and `last` are 0 if there are none."""

    begin: int
    end: int
    count: int = 0
    sum: int = 0
    first: int = 0
    last: int = 0
    gap: int = 0
    gap_after: int = 0


def primes_between(begin: int, end: int) -> Iterator[int]:
    begin = max(begin, 2)
    if begin >= end:
        return
    prime = bytearray(b"\1") * (end - begin)
    for factor in _primes_up_to(isqrt(end - 1)):
        start = max(factor * factor, -(-begin // factor) * factor) - begin
        prime[start::factor] = bytes(len(range(start, len(prime), factor)))
    at = prime.find(1)
    while at >= 0:
        yield begin + at
        at = prime.find(1, at + 1)


def _primes_up_to(most: int) -> list[int]:
    prime = bytearray(b"\1") * (most + 1)
    for factor in range(2, isqrt(most) + 1):
        if prime[factor]:
            prime[factor * factor :: factor] = bytes(len(range(factor * factor, most + 1, factor)))
    return [number for number in range(2, most + 1) if prime[number]]


def look_into(begin: int, end: int) -> Found:
    count = total = first = last = gap = gap_after = 0
    for prime in primes_between(begin, end):
        if last and prime - last > gap:
            gap, gap_after = prime - last, last
        first = first or prime
        last = prime
        count += 1
        total += prime
    return Found(begin, end, count, total, first, last, gap, gap_after)


def join(parts: Iterable[Found]) -> Found:
    """Combine the parts, in any order; a gap may lie between two of them."""
    count = total = first = last = gap = gap_after = 0
    ordered = sorted(parts, key=lambda part: part.begin)
    for part in ordered:
        if last and part.first and part.first - last > gap:
            gap, gap_after = part.first - last, last
        if part.gap > gap:
            gap, gap_after = part.gap, part.gap_after
        first = first or part.first
        last = part.last or last
        count += part.count
        total += part.sum
    return Found(ordered[0].begin, ordered[-1].end, count, total, first, last, gap, gap_after)

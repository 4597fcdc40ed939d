"""One endpoint for each role and target, of the several that a process may have."""

from __future__ import annotations

from collections.abc import Iterable

from localrpc.observe.layout import Endpoint


def total(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """Return `endpoints` with those of one role and target added up, in their order.

    A sum is `live` if one of them is, and begins when the first of them began: of the live ones, if
    there are any. What grows in a process's endpoints grows in their sums, too, while connections
    come and go. Never raises.
    """
    found: dict[tuple[str, str], Endpoint] = {}
    for each in endpoints:
        key = each.role, each.target
        found[key] = _sum(found[key], each) if key in found else each
    return tuple(found.values())


def _sum(one: Endpoint, other: Endpoint) -> Endpoint:
    since = min(each.since for each in (one, other) if each.live or not (one.live or other.live))
    live = one.live or other.live
    return Endpoint(one.role, one.target, live, since, one.counts.plus(other.counts))

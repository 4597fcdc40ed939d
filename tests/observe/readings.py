"""What this process's endpoints have counted, and waiting until it is what a test expects."""

from __future__ import annotations

from typing import Any

import grpc

import localrpc
from localrpc.observe import Counts
from tests.rpc.house import await_that

NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


def counts(target: str, role: str) -> Counts:
    """Of one endpoint of this process."""
    (found,) = (each for each in localrpc.stats() if (each.role, each.target) == (role, target))
    return found.counts


def statuses(counted: Counts) -> dict[str, int]:
    """The ended calls by the names of their codes, those that have occurred."""
    return {NAMES[number]: calls for number, calls in enumerate(counted.ended) if calls}


def expect(target: str, role: str, **numbers: Any) -> Counts:
    """Wait until the endpoint has these numbers; `ended` is as from statuses(). A side counts the
    end of a call when its owner lets it go, which may be after the other side has seen it.
    """

    def read() -> tuple[Counts, dict[str, Any]]:
        now = counts(target, role)
        return now, {
            name: statuses(now) if name == "ended" else getattr(now, name) for name in numbers
        }

    try:
        await_that(lambda: read()[1] == numbers, f"{role} has {numbers}")
    except AssertionError:
        assert read()[1] == numbers
    return read()[0]

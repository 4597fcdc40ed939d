"""multiprocessing's three ways to start a child."""

from __future__ import annotations

import multiprocessing

import pytest

from tests.conftest import DISTINCT, TWO_PROCESSES, spread
from tests.forks.children import ask, try_all_kinds
from tests.peers.journal import PATIENCE
from tests.peers.scenes import Stage

KINDS = [kind for kind in TWO_PROCESSES if kind in DISTINCT]
# The others start interpreters, and what they call over makes no difference to how.
METHODS = spread(KINDS, ("forkserver", "spawn"))
METHODS += [pytest.param(kind, "fork", id=f"{kind}-fork") for kind in KINDS]


@pytest.mark.parametrize(("target", "method"), METHODS, indirect=["target"])
def test_children_of_every_kind_call(target: str, stage: Stage, method: str) -> None:
    try_all_kinds(stage.channel)
    with multiprocessing.get_context(method).Pool(2) as pool:
        waiting = pool.starmap_async(ask, [(target, b"%d" % n) for n in range(4)])
        try_all_kinds(stage.channel)
        assert waiting.get(PATIENCE) == [b"0", b"1", b"2", b"3"]
        pool.close()
        pool.join()
    try_all_kinds(stage.channel)

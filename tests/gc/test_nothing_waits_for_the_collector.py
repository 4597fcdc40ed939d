"""Whatever is dropped is gone, with all that it held, though the collector never runs."""

from __future__ import annotations

from functools import partial

import pytest

from tests.gc.heap import check
from tests.gc.scenes import CALLS, LONG, Home


@pytest.mark.parametrize("how", [{}, {"timeout": LONG}], ids=["", "timeout"])
@pytest.mark.parametrize("scene", CALLS)
def test_a_call_leaves_nothing(scene: str, how: dict[str, float], one_home: Home) -> None:
    check(partial(CALLS[scene], one_home, **how))


def test_no_call_leaves_anything(home: Home) -> None:
    """All of them one after the other, which says less when it fails."""

    def all_of_them() -> None:
        for scene in CALLS.values():
            scene(home)

    check(all_of_them, rounds=4)

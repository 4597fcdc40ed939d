"""The sieve of the gather example, and joining what several have found, by themselves."""

from __future__ import annotations

import importlib.util
import itertools
import random
import sys
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

SOURCE = Path(__file__).parents[2] / "examples/gather/primes.py"


def load() -> Any:
    spec = importlib.util.spec_from_file_location("gather_primes", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


primes = load()
KNOWN = [n for n in range(2, 3000) if all(n % factor for factor in range(2, n))]


@given(st.integers(0, 2999), st.integers(0, 3000))
def test_a_range_holds_its_primes_and_no_others(begin: int, end: int) -> None:
    expected = [prime for prime in KNOWN if begin <= prime < end]
    assert list(primes.primes_between(begin, end)) == expected


@given(st.lists(st.integers(1, 2999), max_size=8), st.randoms(use_true_random=False))
def test_the_total_is_the_same_for_any_split_and_order(
    cuts: list[int], chance: random.Random
) -> None:
    ends = sorted({0, *cuts, 3000})
    parts = [primes.look_into(*pair) for pair in itertools.pairwise(ends)]
    chance.shuffle(parts)
    assert primes.join(parts) == primes.look_into(0, 3000)

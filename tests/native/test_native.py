"""The core under sanitizers: see stress.c for its rounds and its invariant."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import FULL

from .build import HERE, SANITIZERS, compile_native

KINDS = ("ring", "signal", "futex", "spin", "stream", "pipe", "mq", "sysvmq")
ROUNDS = 64 if FULL else 6


@pytest.fixture(scope="module", params=SANITIZERS)
def stress(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_native(HERE / "stress.c", tmp_path_factory, SANITIZERS[request.param])


@pytest.mark.parametrize("kind", KINDS)
def test_every_call_ends_as_it_should_and_no_sanitizer_objects(stress: Path, kind: str) -> None:
    done = subprocess.run(
        [stress, kind, str(ROUNDS), "1"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"{kind}: " in done.stdout


@pytest.fixture(scope="module", params=SANITIZERS)
def looped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_native(HERE / "looped.c", tmp_path_factory, SANITIZERS[request.param])


@pytest.mark.parametrize("how", ["sleeps", "spins"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_event_loop_is_woken_for_everything_that_comes(
    looped: Path, kind: str, how: str
) -> None:
    """See looped.c for its calls and its invariant."""
    command: list[str | Path] = [looped, kind, "500", "1", how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"{kind}: " in done.stdout


@pytest.mark.parametrize("kind", ["stream", "pipe", "mq", "sysvmq"])
def test_the_frames_of_one_turn_leave_together(
    tmp_path_factory: pytest.TempPathFactory, kind: str
) -> None:
    wrap = "-Wl,--wrap=lr_start_thread"
    binary = compile_native(HERE / "turns.c", tmp_path_factory, SANITIZERS["address"], wrap)
    done = subprocess.run([binary, kind], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-4000:]


def test_the_earliest_deadline_is_found_and_each_call_leaves_from_its_place(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    binary = compile_native(HERE / "deadlines.c", tmp_path_factory, SANITIZERS["address"])
    done = subprocess.run([binary], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-4000:]

"""Every input that is kept is run again, without libFuzzer: no fault that was found is back.

A target's own file says what must hold (fuzz_TARGET.c, greeting.py).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.fuzz import build, corpus
from tests.fuzz.greeting import one_input
from tests.native.build import SANITIZERS, core_objects, shared

ENVIRONMENT = {**os.environ, "ASAN_OPTIONS": "allocator_may_return_null=1:handle_abort=1"}

FAILED = [path.name for path in corpus.FOUND.iterdir()]


@pytest.fixture(scope="module")
def replays(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Compiled once, whichever of pytest's processes comes first."""
    core = core_objects(tmp_path_factory, SANITIZERS["address"])
    with shared(tmp_path_factory, "fuzz") as folder:
        return build.build_replays(folder, core=core)


def replay(program: Path, inputs: Path) -> None:
    done = subprocess.run(
        [program, inputs],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=110,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    assert f"{sum(1 for _ in inputs.iterdir())} inputs" in done.stdout


@pytest.mark.parametrize("target", build.TARGETS)
def test_the_core_keeps_its_invariant_for_every_kept_input(
    replays: dict[str, Path], target: str, tmp_path: Path
) -> None:
    corpus.unpack(target, tmp_path / target)
    replay(replays[target], tmp_path / target)


@pytest.mark.parametrize("target", sorted({*FAILED} - {build.PYTHON_TARGET}))
def test_inputs_that_once_failed_pass_now(replays: dict[str, Path], target: str) -> None:
    replay(replays[target], corpus.FOUND / target)


def test_greetings_keep_their_invariant_for_every_kept_input(tmp_path: Path) -> None:
    corpus.unpack(build.PYTHON_TARGET, tmp_path)
    inputs = sorted([*tmp_path.iterdir(), *(corpus.FOUND / build.PYTHON_TARGET).iterdir()])
    assert len(inputs) > 1
    for path in inputs:
        one_input(path.read_bytes())

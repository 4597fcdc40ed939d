"""The core's stress, longer: stress.c says what it does and what must hold."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.native.build import HERE, SANITIZERS, compile_native
from tests.native.test_native import KINDS

FULL = os.environ.get("LOCALRPC_SOAK") == "full"
FLAGS = ("-O2",) if FULL else SANITIZERS["address"]  # which is compiled for tests/native, too
ROUNDS = 3000 if FULL else 8
SEEDS = range(1, 5) if FULL else range(1, 2)

pytestmark = pytest.mark.timeout(3600 if FULL else 120)


@pytest.fixture(scope="module")
def stress(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_native(HERE / "stress.c", tmp_path_factory, FLAGS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_call_ends_over_many_rounds(stress: Path, kind: str, seed: int) -> None:
    done = subprocess.run([stress, kind, str(ROUNDS), str(seed)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    print(f"\n{done.stdout.strip()}")

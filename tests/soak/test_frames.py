"""No wake-up is lost: frames.c says what it does; ten million frames of each kind at full length.

Tens of thousands in an ordinary run. LOCALRPC_SEED has a run again; the
figures are printed: `pytest -s`, or tests/run --soak.
"""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from tests.native.build import SANITIZERS, compile_native

HERE = Path(__file__).resolve().parent
FULL = os.environ.get("LOCALRPC_SOAK") == "full"
FLAGS = ("-O2",) if FULL else SANITIZERS["address"]  # which is compiled for tests/native, too
FRAMES = 10_000_000 if FULL else 5_000
SLOW = {"sysvmq": 5}
"""Times as long as the others take for a frame: in an ordinary run, so much fewer."""
KINDS = ("eventfd", "signal", "futex", "spin", "socket", "pipe", "mq", "sysvmq")
"""A new wake-up kind, or link, adds a word here and a line to frames.c."""

pytestmark = pytest.mark.timeout(7200 if FULL else 240)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_native(HERE / "frames.c", tmp_path_factory, FLAGS)


@pytest.mark.parametrize("kind", KINDS)
def test_no_frame_waits_for_ever(frames: Path, kind: str) -> None:
    seed = os.environ.get("LOCALRPC_SEED") or str(random.SystemRandom().randrange(1 << 30))
    print(f"\n{kind}: LOCALRPC_SEED={seed}", flush=True)
    count = FRAMES if FULL else FRAMES // SLOW.get(kind, 1)
    done = subprocess.run([frames, kind, str(count), seed], capture_output=True, text=True)
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-4000:]}"
    print(done.stdout.strip())

"""spin finds no lost wake-up in the protocol, and finds one as soon as a piece of it is missing."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.skips import need

HERE = Path(__file__).resolve().parent

RIGHT = (
    "data CLIENT STALL",
    "data CLIENT STALL SIGNAL",
    "data CLIENT KILL THREADS=1",
    "data THREADS=1",
    "data THREADS=1 SIGNAL",
    "data THREADS=1 KILL FRAMES=1 SIGNAL",
    "room INTERRUPT",
    "room STALL",
    "late TIMES=1",
    "late LOOPS=1",
    "kick",
    "kick LEADER",
    "kick LEADER IN_LINK",
    "polled",
    "polled CONNS=3 PLACES=2 FRAMES=1",
    "polled POSTS=1",
    "turns",
    "turns PLACES=2 ROUNDS=3 FRAMES=2",
)
WRONG = {
    "data CLIENT BUFFERED=TAIL": "the ringer's fence is missing",
    "data CLIENT BUFFERED=EPOCH": "the sleeper's fence is missing",
    "data CLIENT STALL CLEAR_THEN_RING PROGRESS_ONLY": "a stalled ringer has taken the flag",
    "data CLIENT STALL MARK_BEFORE_RING PROGRESS_ONLY": "a stalled ringer has marked it as rung",
    "data CLIENT STALL MARK_BEFORE_RING": "the mark comes before the ring: the invariant",
    "data CLIENT KILL CLOSE_AT_ONCE": "frames of a dead peer are not drained first",
    "data THREADS=1 LEAD_OUT_UNARMED": "a leader that goes out to a handler leaves links unarmed",
    "room BUFFERED=TAIL": "the writer's fence is missing, for frames",
    "room BUFFERED=EPOCH": "the reader's fence is missing, for frames",
    "room BUFFERED=HEAD": "the reader's fence is missing, for room",
    "room BUFFERED=ROOM_EPOCH": "the writer's fence is missing, for room",
    "room SAME_EPOCH": "more room is asked for in the epoch that was rung",
    "room RING_LATE": "the peer is rung after the wait for room",
    "room MARK_BEFORE_RING": "the mark comes before the ring, for room",
    "late LOOPS=1 BUFFERED=AWAKE": "the fence of the thread that goes to sleep is missing",
    "late LOOPS=1 BUFFERED=HELD": "the fence of a loop that keeps something is missing",
    "late TIMES=1 LOOKS_FIRST": "the thread looks, then goes to sleep",
    "late TIMES=1 FREES_AT_ONCE": "an engine is freed while the thread is inside",
    "late TIMES=1 FORGETS_CURSOR": "the thread goes on with an engine that has left the list",
    "kick BUFFERED=KICKED": "the fence of a thread that rings the service thread is missing",
    "kick LEADER IN_LINK NO_LOOK": "a thread asleep in a link reads the interrupt and ignores it",
    "kick FORGETS": "news between the wait's end and the reset is forgotten",
    "polled LEAVE_UNARMED": "a connection leaves its place without being armed",
    "polled LEAVE_BUSY": "a connection leaves its place though a frame has come",
    "polled POSTS=1 LEAVE_STUCK": "a connection leaves its place and is not armed for room",
    "polled FORGET_NEWCOMERS": "a connection that finds no place is not put into the queue",
    "polled SAME_EPOCH": "a connection after its turn is armed in the epoch that was rung",
    "polled POSTS=1 POST_QUIETLY": "a post on an idle connection is not noticed",
    "turns ONLY_PLACES": "a connection without a place is not read before there is one",
}


def check(folder: Path, run: str) -> str:
    """What the checker says of one model."""
    spin, compiler = need("spin"), need("tcc")
    model, *defines = run.split()
    options = [f"-D{define}" for define in defines]
    subprocess.run([spin, "-a", *options, HERE / f"{model}.pml"], cwd=folder, check=True)
    # gcc takes longer than most of the searches, and its program is hardly faster.
    command = [compiler, "-w", "-DSAFETY", "-DCOLLAPSE", "-o", "pan", "pan.c"]
    subprocess.run(command, cwd=folder, check=True)
    done = subprocess.run(
        ["./pan", "-E", "-m200000", "-w22"], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout


@pytest.mark.parametrize("run", RIGHT)
def test_nothing_is_lost(tmp_path: Path, run: str) -> None:
    said = check(tmp_path, run)
    assert "errors: 0" in said, said
    assert "max search depth too small" not in said
    states = re.search(r"(\d+) states, stored", said)
    assert states
    assert int(states[1]) > 500


@pytest.mark.parametrize("run", WRONG)
def test_a_stall_is_found_when(tmp_path: Path, run: str) -> None:
    said = check(tmp_path, run)
    assert "errors: 1" in said, f"not found: {WRONG[run]}\n{said}"
    assert "assertion violated" in said
    assert list(tmp_path.glob("*.trail"))

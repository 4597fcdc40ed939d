"""Every state of a call with every event: states.c makes them, states.txt has the outcomes.

Invariant: each pair moves the call or is refused, and nothing else happens. The file is
sorted by role and state; what is right for a pair is for PROTOCOL.md to say, and is read
and changed by hand.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from .build import CORE, HERE, SANITIZERS, compile_native

EXPECTED = HERE / "states.txt"


def grouped(lines: list[str]) -> str:
    """Tab-separated role, state, event, outcome, as readable paragraphs."""
    rows: dict[tuple[str, str], dict[str, list[str]]] = {}
    for line in lines:
        role, state, event, outcome = line.split("\t")
        rows.setdefault((role, state), {}).setdefault(outcome, []).append(event)
    paragraphs = []
    for (role, state), outcomes in rows.items():
        text = f"{role}, {state}\n"
        text += "".join(f"    {', '.join(events)}: {what}\n" for what, events in outcomes.items())
        paragraphs.append(text)
    return "\n".join(paragraphs)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    binary = compile_native(HERE / "states.c", tmp_path_factory, SANITIZERS["address"])
    done = subprocess.run([binary], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.splitlines()


def test_every_event_in_every_state_moves_the_call_or_is_refused(outcomes: list[str]) -> None:
    assert grouped(outcomes) == EXPECTED.read_text()


def test_no_pair_of_state_and_event_is_left_out(outcomes: list[str]) -> None:
    pairs = [tuple(line.split("\t")[:3]) for line in outcomes]
    events = {event for _, _, event in pairs}
    states = {(role, state) for role, state, _ in pairs}
    assert len(events) > 25
    assert len(states) > 30
    assert len(pairs) == len(set(pairs)) == len(events) * len(states)


def test_what_one_side_may_send_the_other_takes_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    binary = compile_native(HERE / "agree.c", tmp_path_factory, SANITIZERS["address"])
    done = subprocess.run([binary], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(done.stdout) > 10  # pairs of states


def test_only_the_tables_move_a_call() -> None:
    """Code that sets a state outside the tables would add a transition that is not checked."""
    made = {"table.c": 5, "engine.h": 2}  # a new call's and a free one's; the step itself
    for path in sorted(CORE.rglob("*.[ch]")):
        count = len(re.findall(r"call->(?:life|in|out|place|words\[\w+\]) = ", path.read_text()))
        assert count == made.get(path.name, 0), path.name


@pytest.fixture(scope="module")
def endings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_native(HERE / "endings.c", tmp_path_factory, SANITIZERS["address"])


@pytest.mark.parametrize(
    "case",
    [
        "status-behind-a-message",
        "status-of-a-message-that-no-thread-finishes",
        "a-thread-that-receives-is-sent-away",
        "an-answer-before-the-end",
        "two-answers-before-the-end",
        "a-death-after-the-deadline",
        "room-is-asked-for-again",
        "a-call-that-is-too-late",
        "a-handler-that-is-too-late",
        "a-thread-that-waits-to-enter",
        "a-message-behind-the-last",
    ],
)
def test_a_call_ends_as_it_should_where_things_happen_at_once(endings: Path, case: str) -> None:
    done = subprocess.run([endings, case], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-4000:]


def test_every_case_of_endings_is_tried(endings: Path) -> None:
    names = subprocess.run([endings], capture_output=True, text=True, check=True).stdout.split()
    tried = test_a_call_ends_as_it_should_where_things_happen_at_once.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert names == tried


@pytest.fixture(scope="module")
def starving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    flags = SANITIZERS["address"]
    return compile_native(HERE / "starving.c", tmp_path_factory, flags, "-Wl,--wrap=malloc")


STARVING = (
    "status",
    "status-with-a-large-message",
    "data",
    "headers",
    "credit",
    "end",
    "asking-for-credit",
)


@pytest.mark.parametrize("failures", [1, 2])
@pytest.mark.parametrize("case", STARVING)
def test_a_call_ends_for_its_peer_though_there_is_no_memory_to_say_how(
    starving: Path, case: str, failures: int
) -> None:
    done = subprocess.run(
        [starving, case, str(failures)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr[-4000:]


def test_a_watcher_is_notified_without_memory_for_the_status(
    starving: Path,
) -> None:
    done = subprocess.run([starving, "watched", "1"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-4000:]


def test_every_case_of_starving_is_tried(starving: Path) -> None:
    names = subprocess.run([starving], capture_output=True, text=True, check=True).stdout.split()
    assert tuple(names) == STARVING

"""Two runs compared: noise is not a change, and a change is not noise."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from localrpc.bench.compare import COMPARED, Verdict, as_json, compare, least_p, mann_whitney
from localrpc.bench.document import parse
from localrpc.bench.scenarios import SCENARIOS
from localrpc.cli.bench import bench
from tests.bench.documents import document

TIMES = {"p50", "rate", "cpu"}
TWO: dict[str, Any] = {
    "peers": ("shm", "grpcio"),
    "scenarios": (SCENARIOS["unary"], SCENARIOS["download"]),
    "calls": 500,
}


def test_a_run_compared_with_itself_has_not_changed() -> None:
    run = parse(document(**TWO))
    verdicts = {change.verdict for change in compare(run, run).changes}
    assert verdicts == {Verdict.SAME}


def test_two_runs_of_the_same_code_differ_within_noise() -> None:
    comparison = compare(parse(document(**TWO, seed=1)), parse(document(**TWO, seed=2)))
    assert comparison.count(Verdict.SAME) == len(comparison.changes)


def test_a_fifth_more_time_is_found_where_it_is() -> None:
    before = parse(document(**TWO, seed=1))
    after = parse(document(**TWO, seed=2, slower={"shm": 1.2}))
    for change in compare(before, after).changes:
        slower = change.peer == "shm" and change.figure in TIMES
        # Tails of 500 calls vary more than a fifth.
        if change.figure != "p99":
            assert change.verdict is (Verdict.WORSE if slower else Verdict.SAME), change
    for change in compare(after, before).changes:
        if change.peer == "shm" and change.figure in TIMES:
            assert change.verdict is Verdict.BETTER, change


def samples(raw: dict[str, Any]) -> list[dict[str, Any]]:
    return [r["samples"]["shm"] for r in raw["scenarios"]["unary"]["rounds"]]


def verdicts(before: dict[str, Any], after: dict[str, Any], figure: str) -> set[Verdict]:
    changes = compare(parse(before), parse(after), figures=(figure,)).changes
    return {c.verdict for c in changes if (c.scenario, c.peer) == ("unary", "shm")}


def test_switches_system_calls_and_where_asked_for_memory_are_compared() -> None:
    before, after = document(**TWO), document(**TWO)
    for sample in samples(after):
        sample["server_memory"] += 8 << 20
        sample["client_switches"] *= 3
    calls = after["scenarios"]["unary"]["syscalls_per_call"]
    calls["shm"] = [count - 4 for count in calls["shm"]]
    assert verdicts(before, after, "memory") == {Verdict.WORSE}
    assert verdicts(before, after, "switches") == {Verdict.WORSE}
    assert verdicts(before, after, "syscalls") == {Verdict.BETTER}
    assert {c.figure for c in compare(parse(before), parse(after)).changes} == set(COMPARED)


def test_a_doubled_tiny_value_is_not_worse() -> None:
    before, after = document(**TWO), document(**TWO)
    for raw, switches in ((before, 1), (after, 2)):
        for sample in samples(raw):
            sample.update(calls=1000, client_switches=switches, server_switches=0)
    assert verdicts(before, after, "switches") == {Verdict.SAME}


def test_some_after_none_is_worse_and_valid_json() -> None:
    before, after = document(**TWO), document(**TWO)
    for sample in samples(before):
        sample.update(client_switches=0, server_switches=0)
    assert verdicts(before, after, "switches") == {Verdict.WORSE}
    answer = as_json(compare(parse(before), parse(after), figures=("switches",)))
    assert json.loads(json.dumps(answer, allow_nan=False))["changes"][0]["change"] is None


def test_too_few_rounds_give_no_verdict() -> None:
    before = parse(document(**TWO, rounds=3))
    after = parse(document(**TWO, rounds=3, slower={"shm": 3.0}))
    assert {c.verdict for c in compare(before, after).changes} == {Verdict.UNKNOWN}
    assert compare(before, after, confidence=0.9).count(Verdict.WORSE)


def test_the_exact_test_counts_what_enumeration_counts() -> None:
    draw = random.Random(5)
    for _ in range(30):
        first = [float(draw.randrange(6)) for _ in range(draw.randrange(1, 5))]
        second = [float(draw.randrange(6)) for _ in range(draw.randrange(1, 5))]
        assert mann_whitney(first, second) == pytest.approx(_enumerated(first, second))


def _enumerated(first: list[float], second: list[float]) -> float:
    every = [*first, *second]

    def distance(chosen: tuple[int, ...]) -> float:
        ours = [every[i] for i in chosen]
        theirs = [every[i] for i in range(len(every)) if i not in chosen]
        u = sum((a > b) + (a == b) / 2 for a in ours for b in theirs)
        return abs(u - len(ours) * len(theirs) / 2)

    deals = list(itertools.combinations(range(len(every)), len(first)))
    observed = distance(tuple(range(len(first))))
    return sum(distance(deal) >= observed for deal in deals) / len(deals)


def test_many_rounds_are_approximated_closely() -> None:
    draw = random.Random(6)
    first = [draw.gauss(0, 1) for _ in range(12)]
    second = [draw.gauss(0.8, 1) for _ in range(12)]
    exact = mann_whitney(first, second)
    # 25 values are one too many to count out.
    assert mann_whitney(first, [*second, 0.8]) == pytest.approx(exact, rel=0.5)


def test_five_rounds_apart_are_enough_for_99_percent() -> None:
    assert mann_whitney([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == least_p(5, 5) == 2 / 252


def test_a_different_machine_is_a_remark() -> None:
    before = parse(document(**TWO))
    raw = document(**TWO)
    raw["machine"] = {**raw["machine"], "processor": "Another"}
    raw["placement"] = "one-core"
    remarks = compare(before, parse(raw)).remarks
    assert "processor: AMD EPYC before, Another after" in remarks
    assert "placement: unpinned before, one-core after" in remarks


def test_json_has_the_method_and_each_verdict() -> None:
    run = parse(document(**TWO))
    answer = json.loads(json.dumps(as_json(compare(run, run))))
    assert "Mann-Whitney" in answer["method"]
    assert answer["changes"][0]["verdict"] == "within noise"


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    before.write_text(json.dumps(document(**TWO, seed=1)))
    after.write_text(json.dumps(document(**TWO, seed=2, slower={"shm": 1.3})))
    return str(before), str(after)


def test_a_regression_is_exit_code_1(files: tuple[str, str]) -> None:
    before, after = files
    run = CliRunner().invoke
    assert run(bench, ["compare", before, before]).exit_code == 0
    worse = run(bench, ["compare", before, after])
    assert worse.exit_code == 1
    assert "worse" in worse.output
    # No terminal, no colours.
    assert "\x1b" not in worse.output
    assert run(bench, ["compare", after, before]).exit_code == 0
    assert run(bench, ["compare", after, before, "--fail-on", "change"]).exit_code == 1
    assert run(bench, ["compare", before, after, "--fail-on", "never"]).exit_code == 0
    assert run(bench, ["compare", before, after, "--threshold", "50"]).exit_code == 0


def test_compare_can_print_json(files: tuple[str, str]) -> None:
    done = CliRunner().invoke(bench, ["compare", *files, "--json", "--figure", "p50"])
    assert {change["figure"] for change in json.loads(done.output)["changes"]} == {"p50"}

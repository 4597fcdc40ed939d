"""The runner, over grpcio alone: what it does with slices, rounds and failures."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

import pytest

from localrpc.bench.halves import Worker, WorkerFailed
from localrpc.bench.machine import Usage
from localrpc.bench.peer import Client
from localrpc.bench.peers import find_peer
from localrpc.bench.plan import REPEATS, Plan, Progress
from localrpc.bench.results import Results
from localrpc.bench.runner import Runner
from localrpc.bench.sample import Sample, Slice
from localrpc.bench.scenarios import SCENARIOS, Scenario

UNARY = SCENARIOS["unary"]


@dataclass(frozen=True)
class Broken(Scenario):
    """Fails in the client's process."""

    def measure(self, client: Client, slice_: Slice) -> Sample:
        raise RuntimeError("out of order")


class Full(Scenario):
    def measure(self, client: Client, slice_: Slice) -> Sample:
        raise OSError(errno.ENOSPC, "no room for more queues")


@dataclass(frozen=True)
class Deadly(Scenario):
    """Takes the client's process along."""

    def measure(self, client: Client, slice_: Slice) -> Sample:
        os.abort()


def run(*scenarios: Scenario, peers: tuple[str, ...] = ("grpcio",), rounds: int = 1) -> Results:
    plan = Plan(peers, scenarios, rounds=rounds, seconds=0.01)
    return Runner(plan, lambda progress: None).run()


def test_every_round_has_a_slice_of_every_peer() -> None:
    results = run(UNARY, peers=("grpcio",), rounds=2)
    assert len(results.rounds["unary"]) == 2
    for round_ in results.rounds["unary"]:
        assert round_.samples["grpcio"].calls > 0
        assert round_.samples["grpcio"].server_cpu > 0


def test_disturbed_rounds_are_repeated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localrpc.bench.runner.REPEATS", REPEATS)
    monkeypatch.setattr(Usage, "disturbed", lambda self: True)
    results = run(UNARY, peers=("socket",), rounds=2)
    assert len(results.rounds["unary"]) == 4
    assert len(results.kept("unary")) == 2


def test_a_budget_ends_the_rounds_but_every_scenario_has_one() -> None:
    plan = Plan(("grpcio",), (UNARY, SCENARIOS["raw"]), rounds=50, seconds=0.02, budget=0.0)
    results = Runner(plan, lambda progress: None).run()
    assert {name: len(rounds) for name, rounds in results.rounds.items()} == {"unary": 1, "raw": 1}


def test_an_interrupted_run_keeps_even_the_round_that_it_was_in() -> None:
    slices: list[str] = []

    def interrupt(progress: Progress) -> None:
        if progress.what.startswith("round"):
            slices.append(progress.what)
            # As Ctrl-C would, between the second round's first slice and its second.
            if len(slices) == 4:
                raise KeyboardInterrupt

    plan = Plan(("grpcio", "socket"), (UNARY,), rounds=3, seconds=0.01)
    results = Runner(plan, interrupt).run()
    assert results.interrupted
    first, second = results.rounds["unary"]
    assert first.samples.keys() == {"grpcio", "socket"}
    # Each round begins with another peer.
    assert second.samples.keys() == {"socket"}


def test_a_peer_that_does_not_start_is_a_failure_with_its_reason() -> None:
    results = run(UNARY, peers=("nothing", "grpcio"))
    assert "unknown peer 'nothing'" in results.failures["nothing", None]
    assert results.rounds["unary"][0].samples.keys() == {"grpcio"}


def test_a_scenario_that_fails_leaves_the_others_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__), prepend=os.pathsep)
    results = run(Broken("broken", "broken"), UNARY)
    assert results.failures == {("grpcio", "broken"): "RuntimeError: out of order"}
    assert results.failed
    assert results.rounds["unary"][0].samples["grpcio"].calls > 0


def test_a_limit_of_the_machine_is_not_a_failure_of_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__), prepend=os.pathsep)
    results = run(Full("full", "full"))
    assert "no room for more queues" in results.failures["grpcio", "full"]
    assert not results.failed


def test_a_process_that_dies_is_a_failure_with_its_signal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__), prepend=os.pathsep)
    results = run(Deadly("deadly", "deadly"), UNARY)
    assert "grpcio's client ended: SIGABRT" in results.failures["grpcio", None]


def test_a_process_that_does_not_answer_is_given_up(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("b")
    worker = Worker("server", find_peer("grpcio"), directory, os.sched_getaffinity(0))
    try:
        assert worker.answer(20.0) is None
        with pytest.raises(WorkerFailed, match="grpcio's server gave no answer"):
            worker.answer(0.01)
    finally:
        worker.close()

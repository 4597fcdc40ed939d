"""How long a run takes: planned before it starts, and reckoned again while it lasts."""

from __future__ import annotations

import random

import pytest

from localrpc.bench.peers import default_peers
from localrpc.bench.plan import REPEATS, Clock, Plan
from localrpc.bench.scenarios import KNOWN, SCENARIOS, SWEEPS, Scenario, distinct
from localrpc.cli.bench.live import describe
from localrpc.cli.bench.run import timed

UNARY, RAW = SCENARIOS["unary"], SCENARIOS["raw"]
SEVERAL = tuple(SCENARIOS.values())


class Time:
    """A clock that the test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def simulate(
    plan: Plan, costs: dict[str, float], disturbed: float = 0.0
) -> tuple[float, list[tuple[float, float]]]:
    """Runs a plan as the runner does, with rounds that cost so many seconds each.

    Seconds in all, and before each round what was spent and what seemed to be left.
    """
    draw = random.Random(4)
    time = Time()
    clock = Clock(plan, time)
    clean = dict.fromkeys(costs, 0)
    made = dict.fromkeys(costs, 0)
    seen: list[tuple[float, float]] = []
    for _ in range(REPEATS * plan.rounds):
        for name in [name for name in costs if clean[name] < plan.rounds]:
            if made[name] and not clock.allows(name):
                return clock.spent, seen
            seen.append((clock.spent, clock.progress("").left))
            clock.begin(name)
            time.now += costs[name]
            again = draw.random() < disturbed
            clock.end(disturbed=again)
            made[name] += 1
            clean[name] += not again
    return clock.spent, seen


def test_the_time_of_a_plan_includes_overhead() -> None:
    plan = Plan(("shm", "grpcio"), (UNARY, RAW), rounds=3, seconds=1.0)
    # A fifth for warming up, and the first call.
    assert plan.cost == pytest.approx(12 * (1.2 + 0.02) + plan.start_cost, rel=0.001)
    counting = Plan(("shm", "grpcio"), (UNARY, RAW), rounds=3, seconds=1.0, syscalls=True)
    assert counting.cost > plan.cost + 12 * 0.1


@pytest.mark.parametrize("syscalls", [False, True])
def test_slices_fit_the_time_for_all_of_them(syscalls: bool) -> None:
    plan = Plan(("shm", "unix", "grpcio"), SEVERAL, rounds=5, seconds=1.0, syscalls=syscalls)
    assert 50.0 < plan.fitted(60.0).cost <= 60.0
    assert plan.fitted(1e6) == plan
    # Slices too short to measure anything do not make a run quick.
    assert plan.fitted(1.0).seconds == 0.02


def test_a_full_run_is_planned_for_less_than_ten_minutes_and_a_quick_one_for_one() -> None:
    every: tuple[tuple[Scenario, ...], ...] = (SEVERAL, SWEEPS["all"])
    for scenarios in every:
        plan = Plan(tuple(default_peers()), scenarios, rounds=5, seconds=1.0, syscalls=True)
        full = timed(plan, quick=False, asked=False)
        assert full.cost < 500.0
        assert full.budget is not None
        assert full.budget < 600.0
    quick = timed(Plan(tuple(default_peers()), SEVERAL, 5, 1.0), quick=True, asked=False)
    assert quick.cost < 40.0
    assert quick.budget is not None
    assert quick.budget < 60.0


def test_seconds_that_are_asked_for_are_kept_however_long_they_take() -> None:
    plan = Plan(tuple(default_peers()), SEVERAL, rounds=50, seconds=2.0)
    assert timed(plan, quick=False, asked=True) == plan
    assert plan.cost > 600.0


def test_all_of_the_scenarios_are_those_that_are_known_each_once() -> None:
    every = SWEEPS["all"]
    assert set(SEVERAL) <= set(every)
    # Whole programs would take too long for the time that a run may take.
    assert distinct([*every, *KNOWN.values()]) == (*every, KNOWN["start"])
    # They are the same calls, and would be two points at one place of a plot.
    assert KNOWN["unary-64b"] not in every
    assert KNOWN["threads-8"] not in every
    assert len(every) == len(KNOWN) - 3


def test_the_plan_is_described_in_one_line() -> None:
    plan = Plan(("shm", "grpcio"), (UNARY,), rounds=5, seconds=1.0, budget=570.0)
    assert describe(plan) == (
        "2 peers, 1 scenario, 5 rounds of slices of 1000 ms: about 0:13, at most 9:30"
    )


def test_a_run_that_goes_as_planned_takes_what_was_planned() -> None:
    plan = Plan(tuple(default_peers()), SEVERAL, rounds=5, seconds=1.0)
    total, seen = simulate(plan, {one.name: plan.round_cost(one) for one in SEVERAL})
    assert total + plan.start_cost == pytest.approx(plan.cost)
    for spent, left in seen:
        assert spent + left == pytest.approx(total)


def test_the_time_left_is_right_once_every_scenario_has_had_a_round() -> None:
    plan = Plan(("shm", "grpcio"), SEVERAL, rounds=4, seconds=1.0)
    costs = {scenario.name: 1.0 + number for number, scenario in enumerate(SEVERAL)}
    total, seen = simulate(plan, costs)
    assert total == 4 * sum(costs.values())
    for spent, left in seen[len(SEVERAL) :]:
        assert spent + left == pytest.approx(total)
    # Before that, what the others took says what is to be expected of the rest.
    spent, left = seen[len(SEVERAL) - 1]
    assert spent + left == pytest.approx(total, rel=0.2)


def test_the_time_left_grows_with_rounds_that_are_made_again() -> None:
    plan = Plan(("shm", "grpcio"), SEVERAL, rounds=10, seconds=1.0)
    total, seen = simulate(plan, {scenario.name: 2.44 for scenario in SEVERAL}, disturbed=0.3)
    assert total > 1.2 * 10 * sum(2.44 for _ in SEVERAL)
    half = [spent + left for spent, left in seen if spent > total / 2]
    assert half == pytest.approx([total] * len(half), rel=0.15)


def test_a_failure_is_not_planned_for_again() -> None:
    time = Time()
    clock = Clock(Plan(("shm", "mq"), (UNARY,), rounds=2, seconds=1.0), time)
    clock.begin("unary")
    time.now += 12.0
    clock.end(disturbed=False, once=10.0)
    assert clock.progress("").left == pytest.approx(2.0)


def test_what_takes_long_to_begin_is_planned_for() -> None:
    plan = Plan(("shm",), (UNARY,), rounds=1, seconds=1.0)
    small = plan.round_cost(UNARY)
    assert plan.round_cost(KNOWN["unary-16mib"]) > small + 0.5
    assert plan.round_cost(KNOWN["clients-64"]) > small + 0.3


def test_the_time_left_decreases_within_a_round() -> None:
    time = Time()
    clock = Clock(Plan(("shm",), (UNARY,), rounds=2, seconds=1.0), time)
    clock.begin("unary")
    before = clock.progress("").left
    time.now += 1.0
    assert clock.progress("").left == pytest.approx(before - 1.0)
    time.now += 60.0
    assert clock.progress("").left == pytest.approx(before - 1.22, rel=0.001)


@pytest.mark.parametrize("disturbed", [0.0, 0.5, 1.0])
def test_a_budget_is_never_exceeded(disturbed: float) -> None:
    plan = Plan(("shm", "grpcio"), SEVERAL, rounds=10, seconds=1.0, budget=250.0)
    total, seen = simulate(plan, {scenario.name: 2.5 for scenario in SEVERAL}, disturbed)
    assert total <= 250.0
    assert all(spent + left <= 250.0 + 1e-9 for spent, left in seen)


def test_a_budget_leaves_room_for_counting_system_calls() -> None:
    plan = Plan(("shm", "grpcio"), SEVERAL, 10, 1.0, budget=250.0, syscalls=True)
    total, seen = simulate(plan, {scenario.name: 2.5 for scenario in SEVERAL}, disturbed=1.0)
    counting = plan.slices * plan.counting_cost
    assert total + counting <= 250.0
    assert seen[-1][1] > counting


def test_counted_system_calls_no_longer_count_as_time_left() -> None:
    time = Time()
    plan = Plan(("shm",), (UNARY,), rounds=2, seconds=1.0, syscalls=True)
    clock = Clock(plan, time)
    before = clock.progress("").left
    clock.note_counted()
    assert clock.progress("").left == pytest.approx(before - plan.counting_cost)

"""What the benchmark makes of its samples, without running anything."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from localrpc.bench.machine import Meter, Usage
from localrpc.bench.peer import message
from localrpc.bench.peers import find_peer, known_peers
from localrpc.bench.plan import Placement, Plan
from localrpc.bench.report import as_json, baseline, notes, ratio, rows
from localrpc.bench.results import Results, Round
from localrpc.bench.sample import Latencies, Sample, Stopwatch, repeat
from localrpc.bench.scenarios import SCENARIOS

UNARY = SCENARIOS["unary"]
QUIET = Usage(seconds=1.0, cores=2, own=1.0, others=0.01)
NOISY = Usage(seconds=1.0, cores=2, own=1.0, others=0.5)


def sample(nanoseconds: int, calls: int = 100) -> Sample:
    seconds = calls * nanoseconds / 1e9
    return Sample(calls, seconds, seconds / 2, seconds / 2, Latencies({nanoseconds: calls}))


def results(*rounds: Round, wanted: int = 2) -> Results:
    plan = Plan(peers=("shm", "grpcio"), scenarios=(UNARY,), rounds=wanted, seconds=1.0)
    return Results(plan, {UNARY.name: list(rounds)})


def round_of(shm: int, grpcio: int, usage: Usage = QUIET) -> Round:
    return Round({"shm": sample(shm), "grpcio": sample(grpcio)}, (usage,))


def test_a_slice_in_which_no_call_ends_is_a_failure_with_its_reason() -> None:
    with pytest.raises(RuntimeError, match=r"no call ended within \d+\.\d s"):
        Stopwatch(None).sample(0)


def test_a_percentile_is_a_latency_that_was_measured() -> None:
    latencies = Latencies(range(1, 1001))
    assert latencies.percentile(50) == 500
    assert latencies.percentile(99) == 990
    assert latencies.percentile(99.9) == 999
    assert latencies.percentile(100) == 1000


def test_too_few_calls_have_no_tail() -> None:
    assert Latencies(range(99)).percentile(99) is None
    assert Latencies(range(99)).percentile(50) == 49


def test_calls_of_several_rounds_share_one_tail() -> None:
    pooled = Latencies({10: 99})
    pooled.update(Latencies({10: 99, 500: 2}))
    assert pooled.total() == 200
    assert pooled.percentile(99) == 10
    assert pooled.percentile(99.5) == 500


def test_figures_are_medians_and_ratios_are_of_medians() -> None:
    measured = results(round_of(10, 500), round_of(20, 900), round_of(30, 700), wanted=3)
    shm, grpcio = rows(measured, UNARY)
    p50 = shm.figures["p50"]
    assert (p50.median, p50.low, p50.high) == pytest.approx((20e-9, 10e-9, 30e-9))
    for key in ("p50", "rate", "cpu"):
        assert ratio(key, shm, baseline([shm, grpcio])) == pytest.approx(35)


def test_disturbed_rounds_do_not_count() -> None:
    measured = results(round_of(10, 500), round_of(99, 999, NOISY), round_of(12, 500))
    shm, _ = rows(measured, UNARY)
    assert shm.figures["p50"].high == pytest.approx(12e-9)
    assert "1 of 3 rounds" in "\n".join(notes(measured, {}))


def test_the_least_disturbed_rounds_fill_up_and_are_reported() -> None:
    worse = Usage(seconds=1.0, cores=2, own=1.0, others=0.9)
    measured = results(
        round_of(10, 500), round_of(90, 500, worse), round_of(30, 500, NOISY), wanted=2
    )
    shm, _ = rows(measured, UNARY)
    assert shm.figures["p50"].high == pytest.approx(30e-9)
    assert "Fewer than 2 undisturbed rounds" in "\n".join(notes(measured, {}))


def test_a_failed_peer_has_a_reason_and_the_other_has_no_ratio() -> None:
    measured = results(Round({"shm": sample(10)}, (QUIET,)), wanted=1)
    measured.failures["grpcio", None] = "its server ended"
    shm, grpcio = rows(measured, UNARY)
    assert grpcio.failure == "its server ended"
    assert ratio("p50", shm, baseline([shm, grpcio])) is None
    assert "Failed: grpcio: its server ended" in notes(measured, {})


def test_json_has_every_round_and_marks_the_dropped_ones() -> None:
    measured = results(round_of(10, 500), round_of(20, 500, NOISY), round_of(10, 500))
    rounds = as_json(measured, {}, ["bench"])["scenarios"]["unary"]["rounds"]
    assert [one["disturbed"] for one in rounds] == [False, True, False]


def test_one_core_is_one_and_the_same() -> None:
    server, client = Placement.ONE_CORE.cores()
    assert server == client
    assert len(server) == 1


@pytest.mark.parametrize("size", [64, 1024, 1024 * 1024])
def test_a_message_has_the_size_it_is_asked_for(size: int) -> None:
    assert message(size).ByteSize() == size


def test_the_error_for_an_unknown_peer_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown peer 'carrier-pigeon'; the peers are shm, unix"):
        find_peer("carrier-pigeon")


def test_options_follow_a_transport() -> None:
    assert find_peer("shm?wakeup=signal").name == "shm?wakeup=signal"
    with pytest.raises(ValueError, match="invalid value 'bells' for wakeup"):
        find_peer("shm?wakeup=bells")
    assert "grpcio" in known_peers()


def test_every_call_is_timed_once() -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1

    assert len(repeat(call, 0.001)) == calls


BUSY = """
import sys, time
while time.process_time() < 0.2:
    pass
print("done", flush=True)
sys.stdin.read()
"""


def test_work_of_other_processes_is_counted_however_often_ours_idled() -> None:
    meter = Meter(list)
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"done\n"
        usage = meter.usage(switches=1_000_000)
        other.communicate()
    assert usage.others >= 0.2


def test_our_own_work_does_not_count_as_that_of_others() -> None:
    meter = Meter(list)
    enough = time.process_time() + 0.1
    while time.process_time() < enough:
        pass
    usage = meter.usage()
    assert usage.own >= 0.1
    assert 0.0 <= usage.share <= 1.0

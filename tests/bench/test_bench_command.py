"""`localrpc bench` as it is run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from localrpc.bench.rpc import LocalrpcPeer
from localrpc.bench.runner import Worker

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "localrpc" / "bench" / "bench.proto"
UNARY = "/localrpc.bench.v1.Bench/Unary"
COMMAND = [sys.executable, "-c", "from localrpc.cli import main; main()", "bench"]


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=100)


def test_every_scenario_runs_over_every_transport(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    done = bench("--rounds", "1", "--seconds", "0.02", "--json", file)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(file.read_text())
    assert len(report["scenarios"]) == 9
    for scenario in report["scenarios"].values():
        assert {"shm", "unix", "tcp", "grpcio"} <= scenario["peers"].keys()
        for peer in scenario["peers"].values():
            assert peer["failure"] is None
            assert peer["calls_per_second"]["median"] > 0
            assert peer["cpu_per_call"]["median"] > 0


def test_grpcio_alone_needs_no_transport_of_ours() -> None:
    done = bench("--rounds", "1", "--seconds", "0.02", "--peer", "grpcio", "--scenario", "unary")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "unary, 64 B" in done.stdout


def test_an_unknown_name_is_one_line_with_the_known_ones() -> None:
    for option, known in (("--peer", "shm, unix, "), ("--scenario", "unary, unary-timeout, ")):
        done = bench(option, "nothing")
        assert done.returncode == 2
        assert known in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--size", "huge"), "'huge' is no size from 8 to 16M; --scenario sizes has 64, 1k"),
        (("--baseline", "rpyc", "--peer", "shm"), "'rpyc' is not measured; there are shm"),
        (("--target", "shm:mine"), "--proto FILE and --method"),
        (("--target", "shm:mine", "--proto", PROTO, "--method", "/a.B/C"), f"there are {UNARY}"),
        (("--target", "x:y", "--proto", PROTO, "--method", UNARY), "unknown scheme 'x'"),
        (
            ("--target", "shm:m", "--proto", PROTO, "--method", UNARY, "--data", "{a}"),
            "--data is no localrpc.bench.v1.Echo",
        ),
    ],
)
def test_a_mistake_is_one_line(arguments: tuple[str | Path, ...], said: str) -> None:
    done = bench(*arguments)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]


def test_the_list_has_every_peer_and_scenario() -> None:
    done = bench("--list")
    assert done.returncode == 0
    for name in ("shm", "grpcio-aio", "iceoryx2", "floor-ring", "unary-16mib", "concurrency"):
        assert f" {name} " in done.stdout


def test_scenarios_can_be_made_by_number(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    arguments = ["--size", "2k", "--threads", "3", "--rate", "100", "--clients", "2"]
    done = bench(*arguments, "--peer", "shm", "--peer", "socket", "--baseline", "socket",
                 "--rounds", "1", "--seconds", "0.05", "--json", file)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(file.read_text())
    assert {"cores", "runtime directory"} <= {one["name"] for one in report["doctor"]}
    assert list(report["scenarios"]) == ["unary-2kib", "threads-3", "rate-100", "clients-2"]
    peers = report["scenarios"]["unary-2kib"]["peers"]
    shm = peers["shm"]
    assert shm["bytes_per_second"]["median"] == pytest.approx(
        2048 * shm["calls_per_second"]["median"]
    )
    assert shm["percentiles"]["p50"] == shm["p50"]
    assert shm["percentiles"]["max"]["median"] >= shm["percentiles"]["p90"]["median"]
    assert shm["memory"]["median"] == pytest.approx(
        shm["client_memory"]["median"] + shm["server_memory"]["median"]
    )
    assert shm["times_better"]["max"] > 0
    assert peers["socket"]["times_better"]["rate"] == 1


def test_a_service_of_ones_own_is_measured_where_it_runs(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    directory.mkdir(0o700)
    file = tmp_path / "bench.json"
    unix = LocalrpcPeer("unix")
    with closing(Worker("server", unix, directory, os.sched_getaffinity(0))) as server:
        assert server.answer(20.0) is None
        target = unix.target(directory, "plain")
        done = bench("--target", target, "--proto", PROTO, "--method", UNARY,
                     "--data", '{"payload": "bG9jYWw="}', "--server-pid", str(server.pid),
                     "--rounds", "1", "--seconds", "0.05", "--json", file)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(file.read_text())
    assert report["scenarios"]["unary"]["title"] == f"unary, {UNARY}"
    assert report["scenarios"]["unary"]["message_size"] == len("local") + 2
    row = report["scenarios"]["unary"]["peers"][target]
    assert row["calls_per_second"]["median"] > 0
    assert row["server_memory"]["median"] > 0


def test_a_target_where_nobody_serves_is_a_row_that_says_why(tmp_path: Path) -> None:
    done = bench("--target", f"unix:{tmp_path}/nobody", "--proto", PROTO, "--method", UNARY)
    assert done.returncode == 1
    assert "Failed: unix:" in done.stdout


def test_an_unknown_option_of_a_transport_is_said() -> None:
    done = bench("--transport", "shm?bell=loud")
    assert done.returncode == 2
    assert "unknown option 'bell'" in done.stderr

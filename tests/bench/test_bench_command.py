"""`localrpc bench` as it is run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

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


def test_an_unknown_option_of_a_transport_is_said() -> None:
    done = bench("--transport", "shm?bell=loud")
    assert done.returncode == 2
    assert "unknown option 'bell'" in done.stderr

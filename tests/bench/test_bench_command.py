"""`localrpc bench`: a program where that matters, and within this process elsewhere."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
from click.testing import CliRunner

from localrpc.bench.halves import Worker
from localrpc.bench.rpc import LocalrpcPeer
from localrpc.cli import main
from localrpc.cli.bench import bench as command
from tests.bench.documents import document

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "localrpc" / "bench" / "bench.proto"
UNARY = "/localrpc.bench.v1.Bench/Unary"
COMMAND = [sys.executable, "-c", "from localrpc.cli import main; main()", "bench"]


@dataclass(frozen=True)
class Done:
    returncode: object
    stdout: str
    stderr: str


def bench(*arguments: str | Path) -> Done:
    """What the program does, within this process, which has imported everything already."""
    out, err = io.StringIO(), io.StringIO()
    command = ["localrpc", "bench", *map(str, arguments)]
    with (
        mock.patch.object(sys, "argv", command),
        mock.patch.dict(os.environ),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return Done(ended.value.code, out.getvalue(), err.getvalue())


def test_every_scenario_runs_over_every_transport(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    done = bench("--rounds", "1", "--seconds", "0.01", "--json", file)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(file.read_text())
    assert len(report["scenarios"]) == 9
    for scenario in report["scenarios"].values():
        assert {"shm", "unix", "tcp", "grpcio"} <= scenario["peers"].keys()
        for peer in scenario["peers"].values():
            assert peer["failure"] is None
            assert peer["calls_per_second"]["median"] > 0
            assert peer["cpu_per_call"]["median"] > 0


def test_an_unknown_name_is_one_line_with_the_known_ones() -> None:
    for option, known in (("--peer", "shm, unix, "), ("--scenario", "unary, unary-timeout, ")):
        done = bench(option, "nothing")
        assert done.returncode == 2
        assert known in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--size", "huge"), "'huge' is not a size from 8 to 16M; --scenario sizes has 64, 1k"),
        (("--baseline", "rpyc", "--peer", "shm"), "'rpyc' is not measured; the peers are shm"),
        (("--target", "shm:mine"), "--proto FILE and --method"),
        (("--target", "shm:mine", "--proto", PROTO, "--method", "/a.B/C"), f"known are {UNARY}"),
        (("--target", "x:y", "--proto", PROTO, "--method", UNARY), "unknown scheme 'x'"),
        (
            ("--target", "shm:m", "--proto", PROTO, "--method", UNARY, "--data", "{a}"),
            "--data is not a localrpc.bench.v1.Echo",
        ),
        (
            ("--target", "shm:m", "--proto", PROTO, "--method", UNARY, "--data", '{"nam": 1}'),
            'no field named "nam"',
        ),
        (
            ("--target", "shm:m", "--proto", PROTO, "--method", UNARY, "--scenario", "download"),
            "--target measures unary calls of one request, which excludes download",
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
    assert shm["latency"]["p50"] == shm["p50"]
    assert shm["latency"]["max"]["median"] >= shm["latency"]["p90"]["median"]
    assert shm["memory"]["median"] == pytest.approx(
        shm["client_memory"]["median"] + shm["server_memory"]["median"]
    )
    assert shm["times_better"]["max"] > 0
    assert peers["socket"]["times_better"]["calls_per_second"] == 1


def test_a_running_service_of_the_user_is_measured(tmp_path: Path) -> None:
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


def test_a_service_is_found_by_its_name_where_its_user_has_names(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path_factory.mktemp("n")
    directory.chmod(0o700)
    monkeypatch.setenv("LOCALRPC_RUNTIME_DIR", str(directory))
    shm = LocalrpcPeer("shm")
    with closing(Worker("server", shm, directory, os.sched_getaffinity(0))) as server:
        assert server.answer(20.0) is None
        done = bench("--target", shm.target(directory, "plain"), "--proto", PROTO,
                     "--method", UNARY, "--rounds", "1", "--seconds", "0.02")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_scenario_that_no_peer_supports_is_reported() -> None:
    done = bench("--rounds", "1", "--seconds", "0.02", "--peer", "socket", "--baseline", "socket",
                 "--scenario", "download")  # fmt: skip
    assert "Not measured: server streaming, 64 B: no peer here supports it." in done.stdout


def test_a_target_without_a_server_is_a_row_with_the_reason(tmp_path: Path) -> None:
    done = bench("--target", f"unix:{tmp_path}/absent", "--proto", PROTO, "--method", UNARY)
    assert done.returncode == 1
    assert "Failed: unix:" in done.stdout


def test_an_unknown_option_of_a_transport_is_reported() -> None:
    done = bench("--transport", "shm?bell=loud")
    assert done.returncode == 2
    assert "unknown option 'bell'" in done.stderr


QUICKEST = ("--rounds", "1", "--seconds", "0.02", "--peer", "grpcio", "--scenario", "unary")


def test_one_run_gives_every_output_and_a_baseline(tmp_path: Path) -> None:
    history = tmp_path / "history"
    files = {kind: tmp_path / f"run.{kind}" for kind in ("json", "csv", "html")}
    done = bench(
        *QUICKEST,
        *("--json", files["json"], "--csv", files["csv"], "--report", files["html"]),
        *("--plots", tmp_path / "plots", "--baseline-dir", history, "--save-baseline"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(file.stat().st_size for file in files.values())
    assert (tmp_path / "plots" / "percentiles-unary.svg").exists()
    assert len(list((history / "main").iterdir())) == 1
    again = bench(*QUICKEST, "--baseline-dir", history, "--against-baseline")
    # One round has no noise to be beyond of.
    assert again.returncode == 0, again.stdout + again.stderr
    assert "too few rounds" in again.stdout


def test_a_report_is_made_of_a_document_later(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    results.write_text(json.dumps(document(peers=("shm", "grpcio"), calls=200)))
    report = tmp_path / "report.html"
    done = bench("report", results, "--report", report)
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"Wrote {report}\n"
    assert "<!doctype html>" in report.read_text()
    assert "choose an output" in bench("report", results).stderr


def test_errors_in_outputs_are_reported_before_the_run(tmp_path: Path) -> None:
    done = bench("--report", tmp_path / "no" / "report.html")
    assert done.returncode == 1
    assert "does not exist" in done.stderr.splitlines()[-1]
    done = bench("--baseline-dir", tmp_path, "--against-baseline", "never")
    assert done.returncode == 1
    assert "no baseline 'never'" in done.stderr.splitlines()[-1]


def test_options_of_a_run_do_not_go_with_a_command() -> None:
    done = bench("--quick", "compare", __file__, __file__)
    assert done.returncode == 2
    assert "--quick has to come after compare, or to be used without it" in done.stderr


def test_a_missing_extra_is_one_line_with_the_command_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for option, package in (("--report", "jinja2"), ("--plots", "matplotlib")):
        done = CliRunner().invoke(command, [option, str(tmp_path / "out")])
        assert done.exit_code == 1
        assert done.output.splitlines() == [
            f"Error: this output needs {package}: pip install 'localrpc[bench]'"
        ]


@pytest.mark.parametrize(
    ("missing", "line"),
    [
        ("rich.table", "Error: localrpc bench needs rich.table: pip install 'localrpc[bench]'"),
        ("grpc_tools", "Error: --proto needs grpcio-tools: pip install 'localrpc[codegen]'"),
    ],
)
def test_a_missing_package_is_one_line_with_the_command_for_it(missing: str, line: str) -> None:
    arguments = ["--target", "shm:m", "--proto", str(PROTO), "--method", UNARY]
    script = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        f"sys.argv = ['localrpc', 'bench', *{arguments!r}]\n"
        "from localrpc.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode in (1, 2)
    assert done.stderr.splitlines()[-1] == line


TERMINAL = {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}


def on_a_terminal(*arguments: str, environment: dict[str, str] | None = None) -> str:
    """Return the output on a terminal, with all sequences for movement and colour."""
    ours, theirs = os.openpty()
    env = {**os.environ, **TERMINAL, **(environment or {})}
    with subprocess.Popen([*COMMAND, *arguments], stdout=theirs, stderr=theirs, env=env) as running:
        os.close(theirs)
        seen = b""
        # Linux says that the other end is closed by EIO.
        with contextlib.suppress(OSError):
            while data := os.read(ours, 65536):
                seen += data
        os.close(ours)
        assert running.wait(timeout=60) == 0, seen
    return seen.decode()


COLOR = re.compile(r"\x1b\[(?:\d+;)*[39]\d(?:;\d+)*m")


def test_a_terminal_shows_the_last_round_and_the_time_left() -> None:
    seen = on_a_terminal(*QUICKEST, "--peer", "socket", "--rounds", "2")
    assert "2 peers, 1 scenario, 2 rounds of slices of 20 ms: about 0:" in seen
    live, _, final = seen.partition("scenario  ")
    assert "0:00 left" in live
    # Before the second round, the output shows the first one, or it was disturbed.
    assert re.search(r"unary, 64 B: [01] of 2 rounds", live)
    assert "socket" in live
    assert "socket" in final
    assert COLOR.search(seen)


@pytest.mark.parametrize("how", ["--no-color", "NO_COLOR"])
def test_colours_are_refused_by_an_option_and_by_the_environment(how: str) -> None:
    if how == "NO_COLOR":
        seen = on_a_terminal(*QUICKEST, environment={"NO_COLOR": "1"})
    else:
        seen = on_a_terminal(*QUICKEST, "--no-color")
    assert "unary, 64 B" in seen
    assert not COLOR.search(seen)


def test_grpcio_alone_is_measured_and_a_pipe_gets_no_colours_and_nothing_that_moves() -> None:
    done = subprocess.run([*COMMAND, *QUICKEST], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "unary, 64 B" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert "1 peer, 1 scenario, 1 round of slices of 20 ms: about" in done.stderr


def test_an_interrupted_run_writes_what_was_measured(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    arguments = ["--peer", "grpcio", "--peer", "socket", "--scenario", "unary", "--json", file]
    command = [*COMMAND, *map(str, arguments), "--rounds", "1000", "--seconds", "0.02"]
    ours, theirs = os.openpty()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        env={**os.environ, **TERMINAL},
        start_new_session=True,
    ) as running:
        os.close(theirs)
        seen = b""
        while b"round 3" not in seen:
            seen += os.read(ours, 65536)
        # As a terminal's Ctrl-C: to the whole group.
        os.killpg(running.pid, signal.SIGINT)
        with contextlib.suppress(OSError):
            while os.read(ours, 65536):
                pass
        os.close(ours)
        said = running.communicate(timeout=60)[0]
    assert running.returncode == 130
    assert "Interrupted: only the figures measured until then are shown." in said
    raw = json.loads(file.read_text())
    assert raw["interrupted"] is True
    assert len(raw["scenarios"]["unary"]["rounds"]) >= 2
    for peer in raw["scenarios"]["unary"]["peers"].values():
        assert peer["p50"]["median"] > 0


def test_a_peer_that_fails_is_a_row_beside_those_that_do_not() -> None:
    without_queues = "import resource; resource.setrlimit(resource.RLIMIT_MSGQUEUE, (0, 0)); "
    python, _, program, name = COMMAND
    done = subprocess.run(
        [python, "-c", without_queues + program, name, *QUICKEST, "--peer", "mq"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert re.search(r"│ mq +│ +failed", done.stdout)
    assert re.search(r"Failed: mq: .*ulimit -q", done.stdout, re.DOTALL)
    assert re.search(r"unary, 64 B +│ grpcio +│ +[0-9.]+", done.stdout)

"""`localrpc ps`: what it lists of real processes, and what `--clean` removes."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

import localrpc
from localrpc import testing
from localrpc.cli.processes import document
from localrpc.transports import leftovers, names, posix, records
from tests.peers.processes import server
from tests.peers.scenes import await_that

from .scene import COMMAND, on_terminal, run

PATIENCE = 60.0


@pytest.fixture(autouse=True)
def _no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe is as wide as COLUMNS says, which runners of tests may set."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A runtime directory of this test's own."""
    with tempfile.TemporaryDirectory(prefix="lrt") as directory:
        monkeypatch.setenv("LOCALRPC_RUNTIME_DIR", directory)
        yield directory


def dead_server(path: str) -> None:
    """What one leaves that was killed."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()


def cells(output: str) -> list[dict[str, str]]:
    """The table's lines by heading; cells with spaces in them are last, or not in a pipe."""
    heading, *lines = output.split("\n\n")[0].splitlines()
    names = heading.split()
    return [dict(zip(names, line.split(None, len(names) - 1), strict=True)) for line in lines]


def test_servers_and_channels_are_listed(unique_target: str) -> None:
    def greet(request: bytes, context: object) -> bytes:
        return request

    handlers: dict[str, Any] = {"Greet": grpc.unary_unary_rpc_method_handler(greet)}

    def add(server: grpc.Server) -> None:
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("G", handlers),))

    with testing.serving(add, target=unique_target) as channel:
        stubs: Any = [channel.unary_unary(f"/G/{name}") for name in ("Greet", "Greet", "Other")]
        for stub in stubs[:2]:
            stub(b"", timeout=PATIENCE)
        with pytest.raises(grpc.RpcError):
            stubs[2](b"", timeout=PATIENCE)
        plain, _, options = unique_target.partition("?")
        assert options
        done = run("ps", "--target", plain)
        assert done.exit_code == 0, done.output
        served, called = cells(done.stdout)
        told = json.loads(run("ps", "--target", plain, "--json").stdout)
    expected = {"PID": str(os.getpid()), "TARGET": unique_target, "TRANSPORT": "shm", "CONNS": "1"}
    for line, role in ((served, "server"), (called, "channel")):
        assert line == line | expected | {"ROLE": role, "CALLS": "3", "FAILED": "1"}
        assert line["STATE"] in ("running", "sleeping")
        assert float(line["P99"].rstrip("nums")) > 0
        assert " ".join(sys.orig_argv[1:])[:10] in line["COMMAND"]
    (process,) = told["processes"]
    assert process["pid"] == os.getpid()
    assert process["uid"] == os.geteuid()
    assert process["cpu_seconds"] > 0
    endpoint, _ = process["endpoints"]
    assert endpoint["targets"] == [unique_target]
    assert endpoint["codes"] == {"OK": 2, "UNIMPLEMENTED": 1}
    assert 0 < endpoint["p50"] <= endpoint["p99"] <= endpoint["p99.9"]
    assert endpoint["frames_in"] > 0
    assert told["stale"] == []


def test_what_has_ended_is_listed_only_with_all(unique_target: str) -> None:
    with testing.serving(target=unique_target):
        pass
    pid = str(os.getpid())

    def has_ended() -> bool:
        gc.collect()  # a server's engine ends with its last reference, which a thread may have
        return run("ps", "--target", unique_target, "--pid", pid).exit_code == 1

    await_that(has_ended, "the server's end")
    done = run("ps", "--target", unique_target, "--pid", pid)
    assert f"No server or channel of target {unique_target} and process {pid}." in done.output
    done = run("ps", "--target", unique_target, "--pid", pid, "--all")
    assert done.exit_code == 0, done.output
    assert "server, ended" in done.output


def test_a_stopped_server_is_listed(unique_target: str) -> None:
    """Nothing is asked of it."""
    with server(unique_target) as peer:
        peer.stop()
        (line,) = cells(run("ps", "--pid", str(peer.pid)).stdout)
        assert line == line | {"STATE": "stopped", "ROLE": "server", "TARGET": unique_target}


def test_a_terminal_gets_what_fits(unique_target: str) -> None:
    with testing.serving(target=unique_target):
        arguments = ("ps", "--target", unique_target)
        for columns in (40, 80, 200):
            shown = on_terminal(*arguments, columns=columns)
            lines = shown.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()
            assert len(lines) == 2
            assert max(map(len, lines)) <= columns
            assert ("COMMAND" in lines[0]) is (columns == 200)


def test_watching_lists_again_with_calls_per_second(unique_target: str) -> None:
    with testing.serving(target=unique_target) as channel:
        grpc.channel_ready_future(channel).result(PATIENCE)
        with subprocess.Popen(
            [*COMMAND, "ps", "--target", unique_target, "--watch", "0.1", "--json"],
            stdout=subprocess.PIPE,
            text=True,
        ) as program:
            assert program.stdout is not None
            first, second = (json.loads(program.stdout.readline()) for _ in range(2))
            program.send_signal(signal.SIGINT)
            assert program.wait(PATIENCE) == 130
    assert "interval" not in first["processes"][0]["endpoints"][0]
    endpoint = second["processes"][0]["endpoints"][0]
    assert endpoint["interval"]["calls_per_second"] == 0.0
    assert endpoint["interval"]["seconds"] > 0


def test_little_is_imported() -> None:
    """A list is wanted at once, and again and again: what is imported is most of its time."""
    program = "import sys, localrpc.cli.processes.ps; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "localrpc.transports.leftovers" in loaded
    slow = {"grpc", "rich", "asyncio", "posix_ipc", "localrpc.drive"}
    assert loaded & slow == set()


# ---- what is left over ----


def test_names_of_dead_servers_are_listed_and_removed(folder: str) -> None:
    dead_server(f"{folder}/gone.shm")
    told = json.loads(run("ps", "--target", "shm:gone", "--json").stdout)
    place = f"{folder}/gone.shm"
    assert told == {
        "processes": [],
        "stale": [{"target": "shm:gone", "kind": "socket", "place": place}],
    }
    with testing.serving(target="shm:alive"):
        done = run("ps", "--target", "shm:gone")
        assert done.exit_code == 0
        assert done.stdout.splitlines() == [
            "Left over (localrpc ps --clean removes them):",
            f"  shm:gone  socket  {place}",
        ]
        done = run("ps", "--clean")
        assert done.exit_code == 0, done.output
        assert f"removed shm:gone  socket  {place}\n" in done.stdout
        assert os.listdir(folder) == ["alive.shm"]
        with localrpc.insecure_channel("shm:alive") as channel:
            grpc.channel_ready_future(channel).result(PATIENCE)
    done = run("ps", "--clean")
    assert (done.exit_code, "Nothing is left over." in done.output) == (0, True)


def test_a_name_that_cannot_be_removed_is_an_error(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    records.make(f"{folder}/a.mq", "/localrpc-1-0123456789abcdef-requests", "1").close()

    def missing() -> None:
        raise OSError("posix_ipc is not installed")

    monkeypatch.setattr(posix, "load", missing)
    done = run("ps", "--clean")
    assert done.exit_code == 1
    expected = f"mq:a  POSIX queue  {folder}/a.mq: posix_ipc is not installed"
    assert f"Error: {expected}" in done.output
    failed = json.loads(run("ps", "--clean", "--json").stdout)["failed"]
    left = leftovers.Leftover("mq:a", "POSIX queue", f"{folder}/a.mq")
    assert failed == [document.leftover_of(left) | {"error": "posix_ipc is not installed"}]


def test_a_locked_directory_hinders_no_list(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "_PATIENCE", 0)
    with testing.serving(target="shm:alive"), names.locked(folder):
        done = run("ps", "--target", "shm:alive")
        assert done.exit_code == 0
        assert f"left over are not listed: another process has kept the directory {folder}" in (
            done.output
        )
        assert "shm:alive" in done.stdout
        done = run("ps", "--clean")
        assert done.exit_code == 1
        assert f"Error: another process has kept the directory {folder} locked" in done.output


@pytest.mark.parametrize("more", [["--watch", "1"], ["--pid", "1"], ["--target", "a:"], ["--all"]])
def test_all_that_is_left_over_is_removed_or_nothing(more: list[str]) -> None:
    done = run("ps", "--clean", *more)
    assert done.exit_code == 2
    assert "--clean removes all that is left over: give it alone, or with --json" in done.output

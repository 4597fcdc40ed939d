"""The examples as a reader runs them: stubs generated, server and client as processes."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.checkers import mypy_cache, strict_mypy

EXAMPLES = Path(__file__).parents[2] / "examples"
COMMAND = [sys.executable, "-c", "from localrpc.cli import main; main()"]
WAYS = ["pipe", "shm", "unix", "unix-abstract", "fifo", "mq", "sysvmq", "file", "tcp", "grpc"]
GREETINGS = """\
Hello, Ada!
Hello, Ada!
Bonjour, Ada!
Ciao, Ada!
Hallo, Ada!
Hello, Ada, Grace, Barbara!
Welcome, Ada!
Welcome, Grace!
Welcome, Barbara!
"""


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the examples with their generated code."""
    copy = tmp_path_factory.mktemp("examples") / "examples"
    shutil.copytree(EXAMPLES, copy, ignore=shutil.ignore_patterns("generated", "__pycache__"))
    for name in ("greeter", "search", "gather", "pool"):
        folder = copy / name
        (folder / "generated").mkdir()
        generate = [*COMMAND, "generate", "-I", str(folder), str(folder / f"{name}.proto")]
        subprocess.run([*generate, "--out", str(folder / "generated")], check=True)
    return copy


@contextmanager
def running(*command: str | Path) -> Iterator[None]:
    """A server that a SIGTERM ends gracefully."""
    server = subprocess.Popen([sys.executable, *command])
    try:
        yield
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=10) == 0
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize("scheme", ["shm", "unix"])
def test_the_greeter_greets_in_all_four_ways(examples: Path, scheme: str, tmp_path: Path) -> None:
    target = f"{scheme}:{tmp_path}/greeter"
    with running(examples / "greeter/server.py", target):
        client = [sys.executable, str(examples / "greeter/client.py"), target]
        said = subprocess.run(client, check=True, capture_output=True, text=True, timeout=30)
    assert said.stdout == GREETINGS


def test_the_search_finds_the_same_over_every_transport(examples: Path, tmp_path: Path) -> None:
    (tmp_path / "io.py").write_text("def read_until(end):\n    return namedtuple\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package/other.py").write_text("return lru(maxsize=None)\n")
    run = [sys.executable, str(examples / "search/run.py"), str(tmp_path)]
    done = subprocess.run(run, check=True, capture_output=True, text=True, timeout=60)
    assert "Indexed 2 files, 3 lines" in done.stdout
    assert "'namedtuple': 1 of 1 candidates match: io.py (1)" in done.stdout
    assert "Lines with 'return': 2; " in done.stdout
    assert {"shm", "unix", "tcp", "grpcio"} <= set(done.stdout.split())


@pytest.mark.parametrize("scheme", ["shm", "unix"])
def test_the_pool_paints_the_same_with_several_workers(
    examples: Path, scheme: str, tmp_path: Path
) -> None:
    run = [sys.executable, str(examples / "pool/run.py"), "--target", f"{scheme}:{tmp_path}/s"]
    run += ["--workers", "2", "--width", "78", "--height", "48", "--depth", "20"]
    done = subprocess.run(run, check=True, capture_output=True, text=True, timeout=60)
    assert "@@@@@@@@" in done.stdout
    assert "2 workers, replaced while they painted" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("ways", [WAYS[:5], WAYS[5:]], ids="-".join)
def test_results_of_several_workers_are_gathered_over_every_transport(
    examples: Path, ways: list[str]
) -> None:
    run = [sys.executable, str(examples / "gather/run.py"), "--workers", "2", "--below", "20000"]
    run += [word for way in ways for word in ("--over", way)]
    done = subprocess.run(run, check=True, capture_output=True, text=True, timeout=60)
    found = "together 2,262 primes below 20,000, their sum 21,171,191; the longest gap is 52"
    for way in ways:
        said = done.stdout.partition(f"\n{way}: 2 workers")[2].partition("\n\n")[0]
        assert f"{found}, after 19,609" in said


@pytest.mark.parametrize("scheme", ["tcp", "grpc"])
def test_a_worker_prints_the_port_that_it_has_got(examples: Path, scheme: str) -> None:
    """grpcio's servers share a port that is theirs by number, and calls reach any of them."""
    command = [sys.executable, str(examples / "gather/worker.py"), "1", f"{scheme}:127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        try:
            assert worker.stdout is not None
            port = int(worker.stdout.readline())
            socket.create_connection(("127.0.0.1", port), timeout=20).close()
        finally:
            worker.terminate()


def test_every_way_to_gather_is_tested(examples: Path) -> None:
    help_ = [sys.executable, str(examples / "gather/run.py"), "--help"]
    said = subprocess.run(help_, check=True, capture_output=True, text=True).stdout
    listed = re.search(r"--over \{(.*?)\}", "".join(said.split()).replace("--over{", "--over {"))
    assert listed is not None
    assert listed[1].split(",") == WAYS


@pytest.mark.parametrize("name", ["greeter", "search", "gather", "pool"])
def test_a_type_checker_accepts_the_examples(
    examples: Path, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    check = [sys.executable, *strict_mypy(mypy_cache(tmp_path_factory)), "."]
    done = subprocess.run(check, cwd=examples / name, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout

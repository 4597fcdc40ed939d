"""The examples as a reader runs them: stubs generated, server and client as processes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
COMMAND = [sys.executable, "-c", "from localrpc.cli import main; main()"]
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
    for name in ("greeter", "search"):
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


@pytest.mark.parametrize("name", ["greeter", "search"])
def test_a_type_checker_accepts_the_examples(examples: Path, name: str) -> None:
    check = [sys.executable, "-m", "mypy", "--strict", "."]
    done = subprocess.run(check, cwd=examples / name, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout

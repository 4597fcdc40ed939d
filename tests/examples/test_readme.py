"""README's example, word for word."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def blocks() -> dict[str, str]:
    """The code blocks that begin with the name of a file, by that name."""
    found = re.findall(r"```\w+\n((?:#|//) (\S+)\n.*?)```", README.read_text(), re.DOTALL)
    return {name: text for text, name in found}


def commands(program: str) -> list[list[str]]:
    """The lines of README's shell blocks that run this program, each as its arguments."""
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", README.read_text(), re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [words[1:] for line in lines if (words := shlex.split(line))[:1] == [program]]


def wait_for(path: Path) -> None:
    """Wait until the server listens: its name does not exist before that."""
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A folder with all of its files, and with what is generated."""
    for name, text in blocks().items():
        (tmp_path / name).write_text(text)
    (generate,) = commands("localrpc")
    subprocess.run([sys.executable, "-m", "localrpc.cli", *generate], cwd=tmp_path, check=True)
    return tmp_path


def test_the_first_example_works_as_it_stands(example: Path) -> None:
    runtime = example / "run"
    runtime.mkdir(mode=0o700)
    environment = {**os.environ, "LOCALRPC_RUNTIME_DIR": str(runtime)}
    serve, call = ([sys.executable, *arguments] for arguments in commands("python"))
    with subprocess.Popen(serve, cwd=example, env=environment) as server:
        try:
            wait_for(runtime / "greeter.shm")
            said = subprocess.run(
                call,
                cwd=example,
                env=environment,
                check=True,
                capture_output=True,
                text=True,
                timeout=30,
            )
            assert f"$ python client.py\n{said.stdout}```" in README.read_text()
        finally:
            server.terminate()
    assert server.returncode == 0


def test_the_example_of_a_test_passes(example: Path) -> None:
    pytest_alone = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir=."]
    # Load the plugin by its module, so that a checkout needs no metadata.
    said = subprocess.run(
        [*pytest_alone, "-p", "localrpc._pytest", "test_greeter.py"],
        cwd=example,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )
    assert "1 passed" in said.stdout, said.stdout + said.stderr

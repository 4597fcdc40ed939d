"""README's example, word for word, and the options that it names."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import localrpc
from localrpc.address import RING_MAX, RING_MIN, SCHEMES, parse_target
from localrpc.cli.bench import bench
from localrpc.cli.generate import generate
from localrpc.options import _OWN

README = Path(__file__).parents[2] / "README.md"
GENERATE = "from localrpc.cli import main; main()"


def blocks() -> dict[str, str]:
    """The code blocks that begin with the name of a file, by that name."""
    found = re.findall(r"```\w+\n((?:#|//) (\S+)\n.*?)```", README.read_text(), re.DOTALL)
    return {name: text for text, name in found}


def wait_for(path: Path) -> None:
    """Until the server listens: nobody sees its name before it does."""
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A folder with all of its files, and with what is generated."""
    for name, text in blocks().items():
        (tmp_path / name).write_text(text)
    (tmp_path / "greeter").mkdir()
    generate = [sys.executable, "-c", GENERATE, "generate", "greeter.proto", "--out", "greeter"]
    subprocess.run(generate, cwd=tmp_path, check=True)
    return tmp_path


def test_the_first_example_works_as_it_stands(example: Path) -> None:
    runtime = example / "run"
    runtime.mkdir(mode=0o700)
    environment = {**os.environ, "LOCALRPC_RUNTIME_DIR": str(runtime)}
    with subprocess.Popen([sys.executable, "server.py"], cwd=example, env=environment) as server:
        try:
            wait_for(runtime / "greeter.shm")
            said = subprocess.run(
                [sys.executable, "client.py"],
                cwd=example,
                env=environment,
                check=True,
                capture_output=True,
                text=True,
                timeout=30,
            )
            assert said.stdout == "Hello, Ada!\n"
        finally:
            server.terminate()
    assert server.returncode == 0


def test_the_example_of_a_test_passes(example: Path) -> None:
    pytest_alone = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir=."]
    # The plugin by its module, so that a checkout needs no metadata of its own.
    said = subprocess.run(
        [*pytest_alone, "-p", "localrpc._pytest", "test_greeter.py"],
        cwd=example,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )
    assert "1 passed" in said.stdout, said.stdout + said.stderr


def test_every_option_of_ours_is_explained_and_exists() -> None:
    text = README.read_text()
    assert set(re.findall(r"^\| `(localrpc\.[a-z_]+)` \|", text, re.MULTILINE)) == set(_OWN)
    in_targets = set(re.findall(r"\| `\?([a-z]+)=`", text))
    assert in_targets == {option for scheme in SCHEMES.values() for option in scheme.options}
    bounds = re.search(r"\?ring=` \| `(\w+)` to `(\w+)`", text)
    assert bounds is not None
    sizes = [parse_target(f"shm:x?ring={bound}").ring_size for bound in bounds.groups()]
    assert sizes == [RING_MIN, RING_MAX]


def rows_of(heading: str) -> list[list[str]]:
    """The cells of the table that begins with this line."""
    _, _, rest = README.read_text().partition(f"\n{heading}\n")
    assert rest, heading
    lines = itertools.takewhile(lambda line: line.startswith("|"), rest.splitlines())
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines][1:]


def test_the_transports_are_those_that_there_are_in_their_own_words() -> None:
    head = "| target | between | how calls travel | direction | without copy |"
    told = rows_of(f"{head} what each side knows of the other |")
    assert told == [
        [
            offer.target,
            offer.scope.value,
            offer.technique,
            offer.direction,
            "yes" if offer.zero_copy else "no",
            offer.credentials,
        ]
        for offer in localrpc.transports()
    ]


def test_what_was_measured_is_called_what_it_is() -> None:
    head = "| target | how calls travel | unary, 64 B: p50 | calls/s, 8 threads |"
    techniques = {offer.target: offer.technique for offer in localrpc.transports()}
    for target, how, *_ in rows_of(f"{head} server streaming, 64 B | echo of 1 MiB |"):
        others = ("grpcio", "Python's", "multiprocessing")
        assert target.startswith(others) or techniques[target] == how


def test_every_flag_that_is_named_exists() -> None:
    commands = [bench, *bench.commands.values(), generate]
    known = {option for command in commands for one in command.params for option in one.opts}
    flags = set(re.findall(r"`(?:localrpc [^`\n]*)?(--[a-z-]+)", README.read_text()))
    assert {"--quick", "--placement"} <= flags
    for flag in flags - {"--help"}:
        assert flag in known, flag

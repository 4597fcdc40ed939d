"""No test is skipped silently: tests/skips.py is the only way, and says what is missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tools

ROOT = Path(__file__).resolve().parents[1]
BY_ITSELF = re.compile(r"pytest\.skip\(|mark\.skip|importorskip|SkipTest|unittest\.skip")
TESTS = """
import pytest
from tests import tools
from tests.skips import cannot, need, needs, only_where

tools.TOOLS["spin"] = tools.Tool(lambda: None, "apt-get install spin", ("spin",))
tools.TOOLS["gcc"] = tools.Tool(lambda: "/usr/bin/gcc", "apt-get install gcc", ("gcc",))

@needs("spin")
@pytest.mark.parametrize("number", range(3))
def test_marked(number):
    pass

@pytest.fixture
def spin():
    return need("spin")

def test_in_a_fixture(spin):
    pass

@needs("gcc")
def test_with_a_tool():
    assert need("gcc") == "/usr/bin/gcc"

@only_where(False, "only on another planet")
def test_elsewhere():
    pass

def test_found_out():
    cannot("only on another planet")
"""


def run(folder: Path, ci: str, *options: str) -> tuple[str, dict[str, int]]:
    """What pytest prints of TESTS, and its last line's counts by outcome."""
    (folder / "test_skipped.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.skips", "-p", "no:cacheprovider", *options],
        cwd=folder,
        env=os.environ | {"CI": ci, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    last = done.stdout.splitlines()[-1]
    counts = {what: int(count) for count, what in re.findall(r"(\d+) (\w+)", last)}
    return done.stdout, counts


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one_process", "xdist"])
def test_the_run_ends_with_the_skips_by_reason(tmp_path: Path, options: tuple[str, ...]) -> None:
    said, counts = run(tmp_path, "", *options)
    assert (counts["passed"], counts["skipped"]) == (1, 6)
    assert "    4  needs spin: apt-get install spin\n" in said
    assert "    2  only on another planet\n" in said


def test_in_ci_a_missing_tool_is_a_failure_and_what_the_machine_cannot_do_is_none(
    tmp_path: Path,
) -> None:
    said, counts = run(tmp_path, "true")
    assert (counts["passed"], counts["skipped"]) == (1, 2)
    # Of a marked test and of a fixture it is an error of the test's setup.
    assert counts["errors"] == 4
    assert "needs spin: apt-get install spin" in said


def test_no_test_is_skipped_in_any_other_way() -> None:
    allowed = {ROOT / "tests/skips.py", Path(__file__)}
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if path not in allowed
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if BY_ITSELF.search(line)
    ]
    assert found == [], "use needs(), need(), only_where() or cannot() of tests/skips.py"


def test_every_missing_package_is_listed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.tools"],
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    packages = {package for tool in tools.TOOLS.values() for package in tool.debian}
    assert set(done.stdout.split()) == packages
    assert {"chromium", "clang", "spin"} <= packages


def test_peers_are_tools_one_by_one() -> None:
    extra = re.search(r"^peers = \[(.*?)\]$", (ROOT / "pyproject.toml").read_text(), re.M | re.S)
    assert extra
    names = re.findall(r'"([a-z0-9]+)', extra[1])
    assert "pyzmq" in names
    assert set(names) <= tools.TOOLS.keys()

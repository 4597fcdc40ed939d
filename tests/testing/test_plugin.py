"""The pytest plugin, in a separate pytest run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTEST = [sys.executable, "-m", "pytest", "-v", "--strict-markers", "-p", "no:cacheprovider"]
# Load it by its module, so that a checkout needs no metadata.
PLUGIN = ["-p", "localrpc._pytest"]

BEGINNING = """
import grpc, pytest, localrpc

def shouting(behaviour):
    method = grpc.unary_unary_rpc_method_handler(behaviour)
    return grpc.method_handlers_generic_handler("t", {"Shout": method})

LOUD = shouting(lambda request, context: request.upper())
FAILING = shouting(lambda request, context: 1 // 0)

def shout(channel):
    return channel.unary_unary("/t/Shout")(b"hey", timeout=20)
"""


def run(folder: Path, tests: str) -> str:
    (folder / "test_it.py").write_text(BEGINNING + tests)
    said = subprocess.run(
        [*PYTEST, *PLUGIN, f"--rootdir={folder}", "test_it.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )
    return said.stdout + said.stderr


def test_a_test_has_a_server_of_its_own(tmp_path: Path) -> None:
    said = run(
        tmp_path,
        """
targets = []

def test_one(localrpc_serve):
    assert shout(localrpc_serve(LOUD)) == b"HEY"

def test_two(localrpc_serve, localrpc_target):
    assert localrpc_target == "inproc:"
    assert shout(localrpc_serve(LOUD)) == shout(localrpc_serve(LOUD)) == b"HEY"

def test_named(localrpc_serve):
    localrpc_serve(LOUD, target="inproc:mine")
    with localrpc.insecure_channel("inproc:mine") as second:
        assert shout(second) == b"HEY"

def test_named_again(localrpc_serve):
    assert shout(localrpc_serve(LOUD, target="inproc:mine")) == b"HEY"
""",
    )
    assert "4 passed" in said, said


def test_a_test_runs_once_over_each_of_its_targets(tmp_path: Path) -> None:
    said = run(
        tmp_path,
        """
seen = []

@pytest.mark.localrpc_target("inproc:", "shm:?wakeup=signal", "unix:")
def test_each(localrpc_serve, localrpc_target):
    seen.append(localrpc_target)
    channel = localrpc_serve(LOUD)
    assert shout(channel) == b"HEY"
    assert channel.facts.transport == localrpc_target.partition(":")[0]

@pytest.mark.localrpc_target("tcp:")
class TestAll:
    def test_one(self, localrpc_serve):
        assert localrpc_serve(LOUD) and shout(localrpc_serve(LOUD)) == b"HEY"

    @pytest.mark.localrpc_target("unix:")
    def test_other(self, localrpc_serve, localrpc_target):
        assert localrpc_target == "unix:"

def test_all():
    assert seen == ["inproc:", "shm:?wakeup=signal", "unix:"]

@pytest.mark.localrpc_target("unix:")
def test_that_serves_nothing():
    pass
""",
    )
    assert "7 passed" in said, said
    assert "test_each[shm:?wakeup=signal] PASSED" in said


def test_a_suite_chooses_its_target_once(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "import pytest\n@pytest.fixture\ndef localrpc_target():\n    return 'shm:'\n"
    )
    said = run(
        tmp_path,
        """
def test_it(localrpc_serve):
    channel = localrpc_serve(LOUD)
    assert shout(channel) == b"HEY"
    assert channel.facts.transport == "shm"
""",
    )
    assert "1 passed" in said, said


def test_a_mark_overrides_the_targets_of_a_suite(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "import pytest\n@pytest.fixture(params=['inproc:', 'shm:'])\n"
        "def localrpc_target(request):\n    return request.param\n"
    )
    said = run(
        tmp_path,
        """
def test_each(localrpc_serve):
    assert shout(localrpc_serve(LOUD)) == b"HEY"

@pytest.mark.localrpc_target("unix:")
def test_one(localrpc_serve, localrpc_target):
    assert localrpc_target == "unix:"
    assert shout(localrpc_serve(LOUD)) == b"HEY"
""",
    )
    assert "3 passed" in said, said
    assert "test_one[unix:] PASSED" in said


def test_a_handlers_mistake_is_shown_with_the_test(tmp_path: Path) -> None:
    said = run(tmp_path, "\ndef test_it(localrpc_serve):\n    shout(localrpc_serve(FAILING))\n")
    assert "1 failed" in said
    assert "Captured log call" in said
    assert "ZeroDivisionError: " in said  # CPython 3.14 has another text
    assert 'test_it.py", line 9, in <lambda>' in said, said


def test_a_plain_import_needs_no_pytest() -> None:
    script = "import sys, localrpc.testing; sys.exit('pytest' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)

"""Type checkers accept the output and right code that uses it, and report wrong code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest

from tests.skips import need

from .conftest import USERS, Generated, Reports

# How pyright calls what mypy has a code for.
RULES = {
    "abstract": {"reportAbstractUsage"},
    "arg-type": {"reportArgumentType"},
    "assignment": {"reportAssignmentType"},
    "attr-defined": {"reportAttributeAccessIssue", "reportGeneralTypeIssues"},
    "call-arg": {"reportCallIssue"},
    "call-overload": {"reportCallIssue", "reportArgumentType"},
    "deprecated": {"reportDeprecated"},
    "list-item": {"reportArgumentType"},
    "misc": {"reportGeneralTypeIssues"},
    "override": {"reportIncompatibleMethodOverride"},
}


def expected(*, pyright: bool = False) -> list[tuple[int, str]]:
    """The lines of wrong.py that are marked, each with its code."""
    marks = (
        (number, re.search(r"  # ([a-z-]+)( \(mypy\))?$", line))
        for number, line in enumerate((USERS / "wrong.py").read_text().splitlines(), 1)
    )
    return [(number, mark[1]) for number, mark in marks if mark and not (pyright and mark[2])]


def test_mypy_reports_nothing_for_the_output_and_its_correct_use(mypy: Reports) -> None:
    others = [line for line in mypy.text.splitlines() if not line.startswith("wrong.py:")]
    assert others == []


def test_mypy_reports_every_mistake_and_no_other_line(mypy: Reports) -> None:
    assert sorted(set(mypy.of("wrong.py"))) == expected()


@pytest.fixture(scope="session")
def pyright(generated: Generated) -> list[dict[str, Any]]:
    """What pyright says, in its standard mode, of the output and all programs that use it."""
    program = need("pyright")
    for name in ("right.py", "wrong.py"):
        (generated.folder / name).write_text((USERS / name).read_text())
    command = [program, "--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run(
        [*command, "right.py", "wrong.py", "protocol"],
        cwd=generated.folder,
        env=os.environ | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert said["summary"]["filesAnalyzed"] > len(generated.services())
    reports: list[dict[str, Any]] = said["generalDiagnostics"]
    return reports


def test_pyright_reports_nothing_for_the_output_and_its_correct_use(
    pyright: list[dict[str, Any]],
) -> None:
    assert [report for report in pyright if not report["file"].endswith("/wrong.py")] == []


def test_pyright_reports_every_mistake_and_no_other_line(pyright: list[dict[str, Any]]) -> None:
    reports = [report for report in pyright if report["file"].endswith("/wrong.py")]
    found = {(report["range"]["start"]["line"] + 1, report["rule"]) for report in reports}
    marked = expected(pyright=True)
    assert sorted({line for line, _ in found}) == [line for line, _ in marked]
    codes = dict(marked)
    assert [(line, rule) for line, rule in found if rule not in RULES[codes[line]]] == []


HINTS = """
import importlib, inspect, pkgutil, typing
import grpc, protocol
for info in pkgutil.walk_packages(protocol.__path__, "protocol."):
    if info.name.endswith("_localrpc"):
        module = importlib.import_module(info.name)
        for name, found in vars(module).items():
            if getattr(found, "__module__", "") == info.name and name != "abstractmethod":
                typing.get_type_hints(found)
                functions = filter(inspect.isfunction, vars(found).values())
                print(name, *map(typing.get_type_hints, functions))
from protocol.shop.v1 import catalog_localrpc, catalog_pb2
hints = typing.get_type_hints(catalog_localrpc.CatalogStub)
assert issubclass(typing.get_origin(hints["Get"]), grpc.UnaryUnaryMultiCallable)
assert typing.get_args(hints["Get"]) == (catalog_pb2.GetRequest, catalog_pb2.Item)
result = typing.get_type_hints(catalog_localrpc.CatalogAsyncServicer.Get)["return"]
assert result is catalog_pb2.Item
"""


def test_annotations_can_be_evaluated_at_run_time(generated: Generated) -> None:
    done = generated.run("-W", "ignore", "-c", HINTS)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 5 * len(generated.services())


def test_correct_code_runs_as_its_types_say(generated: Generated) -> None:
    """What type checkers accept exists: `_r_None`, names of public imports, nested types."""
    (generated.folder / "right.py").write_text((USERS / "right.py").read_text())
    script = (
        "from unittest.mock import Mock\n"
        "import right\n"
        "print(right.keyword_fields(), right.odd_names(Mock()))"
    )
    done = generated.run("-W", "ignore", "-c", script)
    assert done.stdout.startswith("b 2 0 a "), done.stderr

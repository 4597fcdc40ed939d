"""Why a test may be skipped, and the list of all that were; tests/conftest.py takes in the hooks.

A test is skipped for one of two reasons. A tool is missing: `@needs("spin")`, or
`need("spin")` inside a fixture, with a tool of tests/tools.py. With CI in the environment
that is a failure, because there every tool is installed. Or this machine or user cannot
do what the test does: `@only_where(condition, reason)`, or `cannot(reason)`.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import NoReturn

import pytest

from tests.tools import TOOLS


def needs(*tools: str) -> pytest.MarkDecorator:
    """The test runs where all of these tools are."""
    assert TOOLS.keys() >= set(tools), tools
    return pytest.mark.needs(*tools)


def need(name: str) -> str:
    """Where the tool is. Without it the running test is skipped, or fails if CI is set."""
    tool = TOOLS[name]
    return tool.find() or lack(f"needs {name}: {tool.install}")


def lack(text: str) -> NoReturn:
    """Something is not installed, and `text` says what, and how to install it."""
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(f"{text}. With CI set nothing is skipped for a missing tool.", pytrace=False)
    pytest.skip(text)


def only_where(holds: bool, reason: str) -> pytest.MarkDecorator:
    """The test runs where the machine and the user allow it; `reason` says what it takes."""
    return pytest.mark.skipif(not holds, reason=reason)


def cannot(reason: str) -> NoReturn:
    """This machine or user does not allow it, as the running test has found out."""
    pytest.skip(reason)


root_only = only_where(os.geteuid() == 0, "needs root")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*tools): tools of tests/tools.py")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        for name in mark.args:
            need(name)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", ()):
        # A file, a line, and "Skipped: " with the reason.
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        counts[str(reason).removeprefix("Skipped: ")] += 1
    if counts:
        terminalreporter.section("skipped, by reason")
        for reason, count in counts.most_common():
            terminalreporter.write_line(f"{count:5}  {reason}")

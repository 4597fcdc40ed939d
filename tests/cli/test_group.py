"""The `localrpc` command itself: how it is started, and what it says to a mistyped name."""

from __future__ import annotations

import subprocess
import sys

from click.testing import CliRunner

from localrpc.cli._group import COMMANDS, commands


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "localrpc", "--version"], capture_output=True, text=True
    )
    assert done.stdout.startswith("localrpc, version "), done.stderr


def test_similar_commands_are_suggested_for_a_mistyped_one() -> None:
    done = CliRunner().invoke(commands, ["transprots"])
    assert done.exit_code == 2
    assert "no such command 'transprots'; did you mean 'transports'?" in done.output


def test_all_commands_are_listed_if_none_is_similar() -> None:
    done = CliRunner().invoke(commands, ["xyzzy"])
    assert done.exit_code == 2
    assert f"no such command 'xyzzy'; the commands are {', '.join(sorted(COMMANDS))}" in done.output

"""Help, and tables for people, fit a narrow terminal, and a pipe for which COLUMNS is set."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from localrpc_codegen.plugin import USAGE

import localrpc
from localrpc import testing
from localrpc.cli._group import commands

from .scene import run


def paths(command: click.Command, *names: str) -> Iterator[tuple[str, ...]]:
    """The names that lead to a command, and to each one below it."""
    yield names
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from paths(below, *names, name)


@pytest.fixture(params=[60, 80])
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("COLUMNS", str(request.param))
    return int(request.param)


def wider_than(width: int, text: str) -> list[str]:
    assert text
    return [line for line in text.splitlines() if len(line) > width]


def test_the_help_of_every_command_fits(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    found = list(paths(commands))
    assert ("serve",) in found
    assert ("bench", "compare") in found
    for names in found:
        # Not with click's CliRunner, which sets a width of its own.
        commands.main([*names, "--help"], prog_name="localrpc", standalone_mode=False)
        assert wider_than(width, capsys.readouterr().out) == [], names


def test_the_help_of_the_plugin_fits(width: int) -> None:
    assert wider_than(width, USAGE) == []


def test_transports_fit(width: int) -> None:
    shown = run("transports").stdout
    assert wider_than(width, shown) == []
    words = " ".join(shown.split())
    for offer in localrpc.transports():
        for text in (offer.target, offer.technique, offer.credentials):
            assert text in words


def test_findings_fit(width: int) -> None:
    assert wider_than(width, run("doctor").stdout) == []


def test_processes_fit(width: int, unique_target: str) -> None:
    with testing.serving(target=unique_target):
        for command in (["ps"], ["top", "--interval", "0.1"]):
            shown = run(*command, "--target", unique_target).stdout
            assert unique_target[-12:] in shown
            assert wider_than(width, shown) == []


def test_a_line_that_is_too_wide_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert wider_than(60, f"short\n{'x' * 61}") == ["x" * 61]
    monkeypatch.delenv("COLUMNS")
    assert any("RLIMIT_NOFILE" in line for line in wider_than(60, run("transports").stdout))

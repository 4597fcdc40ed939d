"""What a shell is offered at a press of the tab key."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from localrpc import testing
from localrpc.cli._group import commands
from localrpc.cli.rpc import completion

from .scene import COMMAND, PROTO, served


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    # A machine that is busy with other tests may keep a server waiting.
    monkeypatch.setattr(completion, "_PATIENCE", 60.0)
    return tmp_path / "localrpc" / "completion"


def offered(*line: str) -> list[str]:
    """For the last word of a command line."""
    *before, incomplete = line
    complete = ShellComplete(commands, {}, "localrpc", "_LOCALRPC_COMPLETE")
    return [item.value for item in complete.get_completions(before, incomplete)]


def test_commands_are_offered() -> None:
    assert offered("de") == ["describe"]


@pytest.mark.parametrize(
    ("incomplete", "expected"),
    [
        ("demo.v1.E", ["demo.v1.Echo/"]),
        ("Ec", ["demo.v1.Echo/"]),
        ("/demo.v1.E", ["/demo.v1.Echo/"]),
    ],
)
def test_one_service_is_offered_with_its_methods(
    demo: str, incomplete: str, expected: list[str]
) -> None:
    found = offered("call", demo, incomplete)
    assert found
    assert all(name.startswith(expected[0]) for name in found)


def test_services_are_offered_until_one_is_meant(demo: str) -> None:
    assert {"demo.v1.Echo/", "demo.v1.Plain/"} <= set(offered("call", demo, "demo."))


def test_methods_of_a_service_are_offered(demo: str) -> None:
    every = offered("call", demo, "demo.v1.Echo/")
    assert len(every) > 1
    first = every[0]
    assert offered("call", demo, first[:-1]) == [
        name for name in every if name.startswith(first[:-1])
    ]


@pytest.mark.parametrize("command", ["list", "health"])
def test_services_are_offered_where_one_is_asked_for(demo: str, command: str) -> None:
    assert offered(command, demo, "demo.v1.P") == ["demo.v1.Plain"]


def test_symbols_are_offered(demo: str) -> None:
    assert offered("describe", demo, "demo.v1.P") == ["demo.v1.Plain"]
    assert offered("describe", demo, "demo.v1.Plain", "demo.v1.Echo/")


def test_a_schema_from_files_needs_no_server() -> None:
    arguments = ("--proto", str(PROTO), "--proto-dir", str(PROTO.parent))
    assert "demo.v1.Echo/" in offered("call", *arguments, "unix:/nowhere", "demo.")


def test_a_shell_waits_as_long_as_the_line_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """And else not forever, as the command itself does."""
    given = []

    def connected(target: str, headers: object, timeout: float, *rest: object) -> None:
        given.append(timeout)
        raise OSError

    monkeypatch.setattr("localrpc.cli.rpc.connection.connected", connected)
    offered("call", "unix:/nowhere", "demo.")
    offered("call", "--timeout", "7", "unix:/nowhere", "demo.")
    assert given == [60.0, 7.0]


def test_a_server_that_is_not_there_is_no_failure(runtime_directory: str) -> None:
    assert offered("call", f"unix:{runtime_directory}/none.sock", "demo.") == []
    assert offered("call", "no such target", "demo.") == []


def test_a_server_is_asked_once_a_minute(one_target: str, cache: Path) -> None:
    with served(one_target):
        first = offered("call", one_target, "demo.v1.Echo/")
    # The server has gone, and what it said is offered on.
    assert first
    assert offered("call", one_target, "demo.v1.Echo/") == first
    (kept,) = cache.glob("*.json")
    assert json.loads(kept.read_text())["target"] == one_target
    os.utime(kept, (0, 0))
    assert offered("call", one_target, "demo.v1.Echo/") == []


def test_a_damaged_file_is_asked_anew(demo: str, cache: Path) -> None:
    first = offered("call", demo, "demo.v1.Echo/")
    (kept,) = cache.glob("*.json")
    kept.write_text("{")
    assert offered("call", demo, "demo.v1.Echo/") == first


def test_targets_are_offered(demo: str) -> None:
    assert "shm:" in offered("call", "s")
    offered("call", demo, "demo.")
    assert demo in offered("call", demo[:-1])


@pytest.mark.parametrize("scheme", ["shm", "mq", "sysvmq"])
def test_targets_that_have_a_server_are_offered(scheme: str) -> None:
    target = f"{scheme}:completed-{os.getpid()}"
    with testing.serving(target=target):
        assert offered("call", target[:-3]) == [target]
    assert offered("call", target[:-3]) == []


def test_a_server_with_a_path_is_offered_while_it_lives(runtime_directory: str) -> None:
    """Elsewhere than in the runtime directory: its process says where."""
    target = f"unix:{runtime_directory}/completed.sock"
    with testing.serving(target=f"{target}?spin=off"):
        for command in ("call", "list", "describe", "health"):
            assert offered(command, target[:-3]) == [target]
    assert offered("call", target[:-3]) == []


@pytest.mark.parametrize("command", ["ps", "top"])
def test_live_targets_are_offered_where_processes_are_chosen(
    command: str, unique_target: str
) -> None:
    plain = unique_target.partition("?")[0]
    with testing.serving(target=unique_target):
        assert plain in offered(command, "--target", plain[:-1])


def test_a_folder_that_cannot_be_written_is_no_failure(
    one_demo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert offered("call", one_demo, "demo.v1.Echo/")


def test_a_shell_gets_it(one_demo: str) -> None:
    """As the script that bash has been given calls the program."""
    environment = os.environ | {
        "_LOCALRPC_COMPLETE": "bash_complete",
        "COMP_WORDS": f"localrpc list --timeout 60 {one_demo} demo.v1.P",
        "COMP_CWORD": "5",
    }
    done = subprocess.run(
        [Path(COMMAND[0]).with_name("localrpc")],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "plain,demo.v1.Plain\n"
    assert done.stderr == ""

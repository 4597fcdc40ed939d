"""The commands as programs: stdin, a terminal, Ctrl-C, a closed pipe, missing packages."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import IO

import pytest

from .scene import COMMAND, PROTO, on_terminal


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ends(program: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code and stderr; stdin stays open."""
    assert program.stderr is not None
    try:
        code = program.wait(60)
    finally:
        program.kill()
    told = program.stderr.read()
    for stream in (program.stdin, program.stdout, program.stderr):
        assert stream is not None
        try:
            stream.close()
        except BrokenPipeError:
            pass
    return code, told


def streams(program: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert program.stdin is not None
    assert program.stdout is not None
    return program.stdin, program.stdout


def test_a_conversation_over_stdin_is_answered_line_by_line(one_demo: str) -> None:
    program = start("call", one_demo, "Echo/Talk", "-d", "-")
    into, out = streams(program)
    for text in ("a", "b"):
        into.write(f'{{"text":\n"{text}"}}\n')
        into.flush()
        assert json.loads(out.readline()) == {"text": text}
    into.close()
    assert ends(program) == (0, "")


def test_a_server_that_ends_the_call_first_ends_the_program(one_demo: str) -> None:
    program = start("call", one_demo, "Echo/Talk", "-d", "-")
    into, _ = streams(program)
    into.write('{"text": "end"}\n')
    into.flush()
    assert ends(program) == (0, "")


def test_ctrl_c_ends_a_call_quietly(demo: str) -> None:
    program = start("call", demo, "Echo/Talk", "-d", "-")
    into, out = streams(program)
    into.write('{"text": "a"}\n')
    into.flush()
    assert out.readline()
    program.send_signal(signal.SIGINT)
    assert ends(program) == (130, "")


def test_a_reader_that_goes_away_ends_the_call_quietly(demo: str) -> None:
    program = start("call", demo, "Echo/Many", "-d", '{"number": 1000000}')
    _, out = streams(program)
    assert out.readline()
    out.close()
    assert ends(program) == (1, "")


def test_stdin_that_is_not_utf_8_is_misuse(one_demo: str) -> None:
    done = subprocess.run(
        [*COMMAND, "call", one_demo, "Echo/One", "-d", "-"], input=b'"\xff"', capture_output=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith(b"Error: -d: stdin is not UTF-8")


def test_answers_on_a_terminal_are_indented(one_demo: str) -> None:
    shown = on_terminal("call", one_demo, "Echo/One", "-d", '{"text": "a", "number": 1}')
    assert shown == '{\n  "text": "a",\n  "number": "1"\n}\n'


@pytest.mark.parametrize(
    ("missing", "options", "line"),
    [
        ("grpc_reflection", [], "server reflection needs grpcio-reflection: pip install"),
        ("grpc_tools", ["--proto", str(PROTO)], "--proto needs grpcio-tools: pip install"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    one_demo: str, missing: str, options: list[str], line: str
) -> None:
    done = without([missing], "call", one_demo, "Echo/One", *options)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {line}")
    assert len(done.stderr.splitlines()) == 1


def test_health_needs_no_package_but_protobuf_and_grpcio(one_demo: str) -> None:
    done = without(["grpc_health", "grpc_reflection", "grpc_tools", "rich"], "health", one_demo)
    assert done.stdout == "SERVING\n", done.stderr


def without(packages: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command where these packages are not installed."""
    script = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({packages!r}))\n"
        f"sys.argv = ['localrpc', *{arguments!r}]\n"
        "from localrpc.cli import main\n"
        "main()\n"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

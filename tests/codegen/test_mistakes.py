"""Every mistake costs one clear line, an exit code, and nothing of what was there before."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from localrpc_codegen import driver

from localrpc.cli._group import commands

GOOD = 'syntax = "proto3";\nmessage Good {}\nservice Greeter { rpc Greet(Good) returns (Good); }\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "protos").mkdir()
    (tmp_path / "protos/good.proto").write_text(GOOD)
    (tmp_path / "out").mkdir()
    return tmp_path


def generate(*arguments: str) -> Result:
    return CliRunner().invoke(commands, ["generate", *arguments])


def refused(result: Result) -> str:
    """The text of a run that failed, and left no trace in the output folder."""
    assert result.exit_code == 1, result.output
    assert list(Path("out").iterdir()) == []
    return result.output


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        (
            'syntax = "proto3";\nmessage A {\n  strin g name = 1;\n}\n',
            "3:11",
            "Missing field number",
        ),
        ('syntax = "proto3";\nmessage A {}\nmessage A {}\n', "3:9", "already defined"),
        ('syntax = "proto3";\nimport "gone.proto";\n', "2:1", "gone.proto"),
        ('syntax = "proto3";\nmessage A { Gone gone = 1; }\n', "2:13", '"Gone" is not defined'),
        ('syntax = "proto3";\nservice S { rpc A(B) returns (B); }\n', "2:19", '"B"'),
    ],
)
def test_protoc_says_where_a_proto_is_broken(
    folder: Path, text: str, place: str, words: str
) -> None:
    (folder / "protos/bad.proto").write_text(text)
    output = refused(generate("protos", "--out", "out"))
    assert f"bad.proto:{place}: " in output
    assert words in output


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["protos/gone.proto", "--out", "out"], "protos/gone.proto"),
        (["protos/gone.proto", "--out", "protos/good.proto"], "protos/gone.proto"),
        (["protos", "--out", "protos/good.proto"], "protos/good.proto is not a folder"),
        (["out", "--out", "out"], "no .proto file in out"),
        (["README.md", "--out", "out"], "README.md is neither a folder nor a .proto file"),
        (["-I", "gone", "protos", "--out", "out"], "the import folder gone does not exist"),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(
    folder: Path, arguments: list[str], line: str
) -> None:
    output = refused(generate(*arguments))
    assert line in output
    assert len(output.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["protos"], "--out"),
        (["--out", "out"], "PROTO or DIR"),
        (["protos", "--out", "out", "--python", "2.7"], "not a version like 3.10"),
        (["protos", "--out", "out", "--imports", "odd"], "'relative'"),
    ],
)
def test_a_missing_argument_is_asked_for(folder: Path, arguments: list[str], words: str) -> None:
    result = generate(*arguments)
    assert result.exit_code == 2
    assert words in result.output


def test_a_missing_tool_is_named_with_the_command_that_installs_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find: Callable[..., Any] = importlib.util.find_spec

    def without(name: str, *rest: Any) -> Any:
        return None if name == "grpc_tools" else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    output = refused(generate("protos", "--out", "out"))
    assert "is not installed: pip install 'localrpc[codegen]'" in output


def test_a_failing_write_leaves_every_file_unchanged(folder: Path) -> None:
    assert generate("protos", "--out", "out").exit_code == 0
    before = {path: path.read_bytes() for path in Path("out").iterdir()}
    (folder / "protos/good.proto").write_text(GOOD.replace("Greet(", "Hello("))
    (folder / "protos/sub").mkdir()
    (folder / "protos/sub/more.proto").write_text(GOOD.replace("G", "M"))
    (folder / "out/sub").write_text("a file where a folder should be")
    before[Path("out/sub")] = Path("out/sub").read_bytes()
    result = generate("protos/good.proto", "protos/sub/more.proto", "--out", "out")
    assert result.exit_code == 1
    assert "out/sub" in result.output
    assert len(result.output.splitlines()) == 1
    assert {path: path.read_bytes() for path in Path("out").iterdir()} == before


def test_two_protos_that_would_become_one_module_are_refused(folder: Path) -> None:
    for name in ("in", "in_"):
        (folder / f"protos/{name}").mkdir()
        text = f'syntax = "proto3";\npackage p{name};\nmessage A {{}}\n'
        (folder / f"protos/{name}/a.proto").write_text(text)
    output = refused(generate("protos", "--out", "out"))
    assert "in/a.proto and in_/a.proto would both become in_.a_pb2" in output


def test_an_import_that_is_not_generated_is_warned_of(folder: Path) -> None:
    (folder / "protos/user.proto").write_text(
        'syntax = "proto3";\nimport "good.proto";\nmessage User { Good good = 1; }\n'
    )
    result = generate("protos/user.proto", "--out", "out")
    assert result.exit_code == 0
    assert "warning: good.proto is imported, but is neither generated here" in result.output
    assert generate("protos/good.proto", "--out", "out").exit_code == 0
    assert "warning" not in generate("protos/user.proto", "--out", "out").output


def test_a_mistake_in_pyproject_names_the_file_and_the_key(folder: Path) -> None:
    (folder / "pyproject.toml").write_text('[tool.localrpc.generate]\noutput = "out"\n')
    assert "has no 'output'; did you mean 'out'?" in refused(generate("protos"))
    (folder / "pyproject.toml").write_text("[tool.localrpc.generate]\ncheck = true\n")
    assert "has no 'check'; it has protos, include, out" in refused(generate("protos"))
    (folder / "pyproject.toml").write_text("tool.localrpc = 1\n")
    assert "localrpc must be a table, as in [tool.localrpc.generate]" in refused(generate("protos"))
    (folder / "pyproject.toml").write_text("[tool.localrpc.generate]\nprotos = 'protos'\n")
    assert "protos in [tool.localrpc.generate] must be a list of strings" in refused(generate())
    (folder / "pyproject.toml").write_text("[tool\n")
    assert "pyproject.toml: " in refused(generate("protos"))
    (folder / "pyproject.toml").write_bytes(b'x = "\xff"\n')
    assert "pyproject.toml: " in refused(generate("protos"))


@pytest.mark.parametrize(
    ("writer", "broken", "file", "construct"),
    [
        (
            "write_stub",
            "class A:\n    class B:\n        def = 3\n",
            "good_pb2.pyi",
            "`def = 3` in A.B",
        ),
        ("rewrite_module", "x = 1\nfrom a.global import b\n", "good_pb2.py", "`from a.global"),
        ("generate", "def f(a, a): pass\n", "good_localrpc.py", "`def f(a, a): pass`"),
    ],
)
def test_output_that_is_not_valid_python_is_not_written(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    writer: str,
    broken: str,
    file: str,
    construct: str,
) -> None:
    (folder / "protos/first.proto").write_text(GOOD.replace("G", "F"))

    def write(*arguments: Any) -> Any:
        return (
            {"good_localrpc.py": broken, "first_localrpc.py": ""}
            if writer == "generate"
            else broken
        )

    monkeypatch.setattr(driver, writer, write)
    if writer != "generate":
        (folder / "protos/first.proto").unlink()
    output = refused(generate("protos", "--out", "out"))
    assert f"Error: good.proto: cannot generate {file}: {construct}" in output
    assert len(output.splitlines()) == 1


def test_protos_that_protobuf_cannot_load_are_refused(folder: Path) -> None:
    text = 'syntax = "proto3";\nmessage A { map<int32, int32> _1 = 1; }\n'
    (folder / "protos/odd.proto").write_text(text)
    output = refused(generate("protos", "--out", "out"))
    assert "Error: odd.proto: the installed protobuf cannot load it: " in output
    assert "1Entry" in output


@pytest.mark.parametrize(
    ("out", "arguments", "hidden"),
    [
        ("typing", [], "typing"),
        ("grpc", [], "grpc"),
        ("out", ["--imports", "absolute"], "grpc"),
        ("out", [], None),
        ("package/typing", [], None),
    ],
)
def test_a_folder_that_hides_what_the_output_imports_is_warned_of(
    folder: Path, out: str, arguments: list[str], hidden: str | None
) -> None:
    (folder / "protos/grpc").mkdir()
    (folder / "protos/grpc/health.proto").write_text(GOOD.replace("G", "H"))
    (folder / out).mkdir(parents=True, exist_ok=True)
    (folder / "package").mkdir(exist_ok=True)
    (folder / "package/__init__.py").touch()
    result = generate("protos", "--out", out, *arguments)
    assert result.exit_code == 0
    assert result.output.count("warning: ") == (hidden is not None), result.output
    assert (f"hides the package {hidden!r}" in result.output) == (hidden is not None)


def test_a_package_of_the_user_that_hides_a_module_is_warned_of(folder: Path) -> None:
    (folder / "out/good_pb2").mkdir()
    (folder / "out/good_pb2/__init__.py").touch()
    result = generate("protos", "--out", "out")
    assert result.exit_code == 0
    assert "warning: the package out/good_pb2 hides out/good_pb2.py: " in result.output

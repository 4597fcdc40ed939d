"""What `localrpc generate` does besides generating."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT
from .test_mistakes import GOOD, folder, generate

__all__ = ["folder"]


def names(out: str = "out") -> list[str]:
    return sorted(str(path.relative_to(out)) for path in Path(out).rglob("*") if path.is_file())


def test_a_proto_becomes_three_files_in_a_package(folder: Path) -> None:
    assert generate("protos/good.proto", "--out", "out").exit_code == 0
    assert names() == ["__init__.py", "good_localrpc.py", "good_pb2.py", "good_pb2.pyi"]


def test_a_file_may_have_a_name_that_is_not_ascii(folder: Path) -> None:
    (folder / "protos/grüße.proto").write_text('syntax = "proto3";\nmessage Gru {}\n')
    (folder / "protos/good.proto").write_text(GOOD.replace(";", ';\nimport "grüße.proto";', 1))
    assert generate("protos", "--out", "out").exit_code == 0
    done = subprocess.run([sys.executable, "-c", "import out.good_pb2, out.grüße_pb2"])
    assert done.returncode == 0


def test_unchanged_files_keep_their_modification_times(folder: Path) -> None:
    generate("protos", "--out", "out")
    before = {name: Path("out", name).stat().st_mtime_ns for name in names()}
    assert "0 changed" in generate("protos", "--out", "out").output
    assert {name: Path("out", name).stat().st_mtime_ns for name in names()} == before


def test_check_accepts_only_up_to_date_output(folder: Path) -> None:
    assert generate("protos", "--out", "out", "--check").exit_code == 1
    assert names() == []
    generate("protos", "--out", "out")
    assert generate("protos", "--out", "out", "--check").exit_code == 0
    (folder / "protos/good.proto").write_text(GOOD + "// Nothing.\nmessage More {}\n")
    result = generate("protos", "--out", "out", "--check")
    assert result.exit_code == 1
    assert "out of date: out/good_pb2.py\n" in result.output


def test_the_module_of_a_removed_service_is_removed(folder: Path) -> None:
    generate("protos", "--out", "out")
    (folder / "protos/good.proto").write_text('syntax = "proto3";\nmessage Good {}\n')
    assert "out/good_localrpc.py" in generate("protos", "--out", "out", "--check").output
    generate("protos", "--out", "out")
    assert names() == ["__init__.py", "good_pb2.py", "good_pb2.pyi"]


def test_a_file_of_the_user_is_never_removed(folder: Path) -> None:
    (folder / "protos/good.proto").write_text('syntax = "proto3";\nmessage Good {}\n')
    (folder / "out/good_localrpc.py").write_text("# mine\n")
    generate("protos", "--out", "out")
    assert Path("out/good_localrpc.py").read_text() == "# mine\n"


def test_an_init_file_of_the_user_is_left_alone(folder: Path) -> None:
    (folder / "out/__init__.py").write_text("# mine\n")
    generate("protos", "--out", "out")
    assert Path("out/__init__.py").read_text() == "# mine\n"


def test_no_init_file_is_written_where_none_is_wanted(folder: Path) -> None:
    generate("protos", "--out", "out", "--no-init")
    assert "__init__.py" not in names()


def test_into_the_current_folder_modules_are_for_scripts_beside_them(folder: Path) -> None:
    assert generate("protos", "--out", ".").exit_code == 0
    assert not Path("__init__.py").exists()
    script = "import good_localrpc; print(good_localrpc.GREETER_GREET)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "/Greeter/Greet\n", done.stderr


def test_settings_come_from_the_nearest_pyproject(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "pyproject.toml").write_text(
        '[tool.localrpc.generate]\nprotos = ["protos"]\nout = "out"\ninit = false\n'
    )
    (folder / "deeper").mkdir()
    monkeypatch.chdir(folder / "deeper")
    assert generate().exit_code == 0
    assert names("../out") == ["good_localrpc.py", "good_pb2.py", "good_pb2.pyi"]
    assert generate("--init").exit_code == 0
    assert "__init__.py" in names("../out")


def test_a_missing_output_folder_is_made(folder: Path) -> None:
    assert generate("protos", "--out", "new/deeper", "--check").exit_code == 1
    assert not Path("new").exists()
    assert generate("protos", "--out", "new/deeper").exit_code == 0
    assert "good_pb2.py" in names("new/deeper")


def test_imports_are_relative_to_the_folders_named_with_include(folder: Path) -> None:
    (folder / "protos/sub").mkdir()
    (folder / "protos/sub/user.proto").write_text(
        'syntax = "proto3";\nimport "good.proto";\nmessage User { Good good = 1; }\n'
    )
    assert generate("-I", "protos", "protos", "--out", "out").exit_code == 0
    text = Path("out/sub/user_pb2.py").read_text()
    assert "from .. import good_pb2 as good__pb2\n" in text


def test_help_of_all_commands_imports_none_of_them() -> None:
    script = (
        "import sys\n"
        "sys.argv = ['localrpc', '--help']\n"
        "from localrpc.cli import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    sys.exit('grpc' in sys.modules or 'google.protobuf' in sys.modules)\n"
    )
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / '.dev'}", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"generate" in done.stdout


@pytest.mark.parametrize(
    ("missing", "line"),
    [
        ("click", "localrpc: the commands need click: pip install 'localrpc[cli]'\n"),
        (
            "google",
            "Error: localrpc generate needs google.protobuf: pip install 'localrpc[codegen]'\n",
        ),
    ],
)
def test_a_missing_package_costs_one_line_with_the_command_that_installs_it(
    missing: str, line: str
) -> None:
    script = (
        "import sys\n"
        f"sys.modules[{missing!r}] = None\n"
        "sys.argv = ['localrpc', 'generate', 'x.proto', '--out', '.']\n"
        "from localrpc.cli import main\n"
        "main()\n"
    )
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / '.dev'}", "PATH": ""}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == line


@pytest.mark.timeout(30)
def test_watch_generates_again_when_a_proto_changes(folder: Path) -> None:
    command = [sys.executable, "-u", "-m", "localrpc.cli", "generate"]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / '.dev'}", "PATH": ""}
    watcher = subprocess.Popen(
        [*command, "protos", "--out", "out", "--watch"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert watcher.stdout is not None
        assert "4 changed" in watcher.stdout.readline()
        (folder / "protos/good.proto").write_text("broken")
        while "good.proto:1:1: " not in (line := watcher.stdout.readline()):
            assert line
        (folder / "protos/good.proto").write_text(GOOD.replace("Greet(", "Hello("))
        while "changed" not in (line := watcher.stdout.readline()):
            assert line
    finally:
        watcher.kill()
        watcher.communicate()
    assert "GREETER_HELLO" in Path("out/good_localrpc.py").read_text()

"""Files of an application that have the name of a module which a server needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import localrpc
from localrpc.workers import application
from localrpc.workers.application import BadApplication
from localrpc.workers.clashes import advice
from tests.workers.served import PATIENCE, ask, serving, who

NAMES = ("asyncio", "calendar", "grpc", "json", "queue", "selectors", "socket", "subprocess")


def wrong_files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / f"{name}.py").write_text("raise RuntimeError('the wrong file')\n")


def test_a_file_with_the_name_of_another_module_is_not_imported(folder: Path) -> None:
    wrong_files(folder, *NAMES)
    target = f"shm:{folder}/s"
    with serving(folder, "app:async_setup", target) as served:
        assert who(target)[0] in served.workers()
        assert served.stop() == 0


def test_nor_is_it_if_a_program_serves(folder: Path) -> None:
    """Without `python -m`, which would run the file localrpc.py."""
    wrong_files(folder, *NAMES, "localrpc", "runpy", "typing")
    target = f"shm:{folder}/s"
    program = (
        "import sys; sys.path.remove(''); import localrpc;"
        f"sys.exit(localrpc.serve('app:setup', '{target}'))"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=folder)
    try:
        with localrpc.insecure_channel(target) as channel:
            ask(channel, wait_for_ready=True)
    finally:
        process.terminate()
    assert process.wait(PATIENCE) == 0


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that comes first on sys.path, with a module that needs some of its neighbours."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("colorsys", "user"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def error_of(place: Path, program: str) -> str:
    """What is added to the error of this module."""
    (place / "user.py").write_text(program)
    try:
        application.load("user:setup", str(place))
    except Exception as error:
        return advice(error, str(place))
    raise AssertionError


def test_a_file_in_place_of_a_module_of_python_is_named(place: Path) -> None:
    (place / "colorsys.py").write_text("x = 1\n")
    said = f"\n{place}/colorsys.py has the name of Python's module 'colorsys' and is imported in"
    for program in ("import colorsys\ncolorsys.rgb_to_hls", "from colorsys import rgb_to_hls"):
        assert error_of(place, program) == f"{said} its place: rename it"
        del sys.modules["colorsys"]


def test_a_file_that_is_not_imported_is_named(place: Path) -> None:
    (place / "json.py").write_text("mine = 1\n")
    said = f"{place}/json.py has the name of Python's module 'json' and is not imported: rename it"
    for program in (
        "import json\njson.mine",
        "from json import mine",
        "import json.mine",
        "try:\n    import json.mine\nexcept ImportError:\n    raise ValueError",
    ):
        assert error_of(place, program) == f"\n{said}"
    with pytest.raises(BadApplication, match=said):
        application.load("json:mine", str(place))


def test_a_folder_in_place_of_an_installed_package_is_named(place: Path) -> None:
    import grpc

    (place / "grpc").mkdir()
    (place / "grpc" / "__init__.py").touch()
    assert error_of(place, "import grpc\ngrpc.mine") == (
        f"\n{place}/grpc/__init__.py has the name of the installed module 'grpc' ({grpc.__file__})"
        " and is not imported: rename it"
    )


def test_an_error_that_has_another_cause_is_left_as_it_is(place: Path) -> None:
    (place / "json.py").write_text("mine = 1\n")
    for program in ("1 / 0", "import nowhere", "import re\nre.nothing", "None.nothing"):
        assert error_of(place, program) == ""

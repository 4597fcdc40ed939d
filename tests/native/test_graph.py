"""The core's folders and files: calls go only downwards. Read from the symbols of the objects."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.skips import need

from .build import CORE, SANITIZERS, core_objects

# Lowest first. The files of a folder may call its own and those of the folders below.
FLOORS = ("util", "links", "engine")
PACKAGE = CORE.parents[1]
TESTS = Path(__file__).resolve().parents[1]


@dataclass
class Object:
    """One object file: its own global names, and the global names of others that it uses."""

    defines: set[str] = field(default_factory=set)
    uses: set[str] = field(default_factory=set)


def symbols_of(path: Path) -> Object:
    nm = ["nm", "--format=posix", str(path)]
    found = Object()
    for line in subprocess.run(nm, capture_output=True, text=True, check=True).stdout.splitlines():
        name, kind = line.split()[:2]
        if kind == "U":
            found.uses.add(name)
        elif kind.isupper():
            found.defines.add(name)
    return found


def calls_of(objects: dict[str, Object]) -> dict[str, set[str]]:
    """For each object, the others that it calls, or whose data it reads."""
    owner = {name: key for key, found in objects.items() for name in found.defines}
    return {
        key: {owner[name] for name in found.uses if name in owner} - {key}
        for key, found in objects.items()
    }


def circle_in(calls: dict[str, set[str]]) -> list[str]:
    """The objects of one cycle, or an empty list."""
    try:
        TopologicalSorter(calls).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle
    return []


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Object]:
    paths = core_objects(tmp_path_factory, SANITIZERS["address"])
    return {path.stem.replace("-", "/"): symbols_of(path) for path in paths}


def test_a_circle_is_seen(tmp_path: Path) -> None:
    parts = {
        "up": "int up(void); int down(void); int up(void) { return down(); }",
        "down": "int up(void); int down(void); int down(void) { return up(); }",
        "top": "int up(void); int top(void); int top(void) { return up(); }",
    }
    found = {}
    for name, text in parts.items():
        (tmp_path / f"{name}.c").write_text(text)
        subprocess.run([need("gcc"), "-c", f"{name}.c"], cwd=tmp_path, check=True)
        found[name] = symbols_of(tmp_path / f"{name}.o")
    calls = calls_of(found)
    assert calls == {"up": {"down"}, "down": {"up"}, "top": {"up"}}
    assert set(circle_in(calls)) == {"up", "down"}


def test_every_file_is_on_a_floor(objects: dict[str, Object]) -> None:
    assert {key.split("/")[0] for key in objects} == set(FLOORS)
    assert len(objects) == len({*CORE.rglob("*.c")})


def test_a_floor_never_calls_one_above(objects: dict[str, Object]) -> None:
    """The engine reaches links, and links byte channels, through tables of functions."""
    for key, called in calls_of(objects).items():
        below = FLOORS[: FLOORS.index(key.split("/")[0]) + 1]
        assert {name.split("/")[0] for name in called} <= {*below}, key


def test_no_circle_of_files_call_each_other(objects: dict[str, Object]) -> None:
    assert circle_in(calls_of(objects)) == []


def test_the_engine_calls_upwards_in_the_list_of_its_header(objects: dict[str, Object]) -> None:
    """engine.h declares each file's functions, in this order."""
    sections = re.findall(
        r"^/\* ((?:\w+\.c(?:, | and )?)+)", (CORE / "engine" / "engine.h").read_text(), re.MULTILINE
    )
    place = {
        f"engine/{name}": number
        for number, section in enumerate(sections)
        for name in re.findall(r"(\w+)\.c", section)
    }
    calls = calls_of(objects)
    assert set(place) == {key for key in calls if key.startswith("engine/")}
    for key in place:
        for called in calls[key] & set(place):
            assert place[called] <= place[key], f"{key} calls {called}"


def test_what_one_file_alone_uses_is_static(objects: dict[str, Object]) -> None:
    exported = names_of(CORE / "api.h")
    used = {name for found in objects.values() for name in found.uses}
    used |= called_from(TESTS.rglob("*.c"))
    for key, found in objects.items():
        ours = {name for name in found.defines if name.startswith("lr_")}
        assert ours - used - exported == set(), key


def names_of(header: Path) -> set[str]:
    """The functions that a header for cffi declares."""
    return set(re.findall(r"^[\w ]+?[ *]+(lr_\w+)\(", header.read_text(), re.MULTILINE))


def called_from(files: Iterable[Path]) -> set[str]:
    return {name for path in files for name in re.findall(r"\blr_\w+", path.read_text())}


@pytest.mark.parametrize(
    ("header", "users"),
    [
        (CORE / "api.h", [PACKAGE, TESTS]),
        (PACKAGE / "bench" / "src" / "floor.h", [PACKAGE / "bench"]),
    ],
    ids=["core", "floor"],
)
def test_every_function_for_python_is_called(header: Path, users: list[Path]) -> None:
    declared = names_of(header)
    assert declared
    files = [path for folder in users for path in folder.rglob("*.py")]
    assert declared - called_from(files) == set()


def test_a_file_includes_headers_of_its_floor_and_those_below() -> None:
    for path in CORE.rglob("*.[ch]"):
        for name in re.findall(r'^#include "(.+)"', path.read_text(), re.MULTILINE):
            header = (path.parent / name).resolve()
            assert header.exists(), f"{path}: {name}"
            if header.parent == CORE:
                continue  # api.h
            assert path.parent != CORE, f"{path}: {name}"
            floors = [FLOORS.index(at.parent.name) for at in (header, path)]
            assert floors == sorted(floors), f"{path}: {name}"


def test_the_engine_sees_of_links_their_table_alone() -> None:
    engine = "".join(path.read_text() for path in (CORE / "engine").glob("*.[ch]"))
    assert set(re.findall(r'^#include "\.\./links/(.+)"', engine, re.MULTILINE)) == {"link.h"}

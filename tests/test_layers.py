"""Imports go only downwards, those inside functions and for type checkers too."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Highest first. A module may import its own package and those of the rows below, but not the
# others of its row. The APIs are twins, each without the other. What a call is does not depend on
# how its frames travel, and a transport knows of no calls.
FLOORS = (
    ("sync", "aio", "observe"),
    ("drive",),
    ("calls", "transports"),
    ("wire",),
    ("_core",),
    ("base",),
)
# Reads what the core counts, and needs nothing that makes calls; nothing that does imports it.
ONLY = {"observe": {"_core"}}
COMING: set[str] = set()
BASE = {
    "_grpc",
    "_later",
    "_locks",
    "_log",
    "_version",
    "address",
    "errors",
    "metadata",
    "options",
    "status",
}

# What a floor imports that is neither ours nor Python's.
FOREIGN = {
    "sync": {"grpc"},
    "aio": {"grpc"},
    "drive": {"grpc"},
    "calls": {"grpc"},
    "transports": {"posix_ipc"},
    "wire": {"google"},
    "_core": {"cffi", "hatchling"},
    "observe": set(),
    "base": {"grpc"},
}

# Packages that know no more than what has happened, and what may not be in them.
STATES = ("calls", "wire")
WAITING = {
    *("_thread", "asyncio", "concurrent", "datetime", "multiprocessing", "queue", "sched"),
    *("select", "selectors", "signal", "socket", "subprocess", "threading", "time"),
    *("localrpc._core", "localrpc._locks"),
}

# For other libraries: each imports the one that it is for.
INTEGRATIONS = {
    "_metrics": set(),
    "opentelemetry": {"opentelemetry"},
    "prometheus": {"prometheus_client"},
    "sentry": {"sentry_sdk"},
}
# And locks that are free in a forked child.
PUBLIC = ("localrpc", "localrpc._locks", "localrpc.aio", "localrpc.observe")

# For tests of user code: the public API, and the schemes that exist.
TESTING = {"testing": {"grpc"}, "_pytest": {"grpc", "pytest"}}


def imports_of(path: Path, package: str) -> Iterator[str]:
    """Full names of all that a file imports, `from a import b` as a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def modules(folder: str, package: str) -> Iterator[tuple[Path, str]]:
    """Every file below a folder, with the package it is in."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        inside = path.parent.relative_to(ROOT / folder).parts
        yield path, ".".join((package, *inside))


def floor_of(name: str) -> str | None:
    """The floor of an imported localrpc name, None for the package itself."""
    second = name.split(".")[1]
    return "base" if second in BASE else second if second in PACKAGES else None


PACKAGES = [package for row in FLOORS for package in row]


def below(floor: str) -> set[str]:
    """The floor itself, and all that it may import."""
    (row,) = (index for index, packages in enumerate(FLOORS) if floor in packages)
    return {floor}.union(ONLY.get(floor) or set().union(*FLOORS[row + 1 :]))


def climbing(floor: str, files: Iterable[tuple[Path, str]]) -> Iterator[str]:
    """What the files of a floor import although they must not."""
    for path, package in files:
        for name in imports_of(path, package):
            if name.startswith("localrpc."):
                if floor_of(name) not in below(floor):
                    yield f"{path}: {name}"
            elif is_foreign(name) and name.split(".")[0] not in FOREIGN[floor]:
                yield f"{path}: {name}"


def is_foreign(name: str) -> bool:
    top = name.split(".")[0]
    return top not in sys.stdlib_module_names and top not in ("localrpc", "localrpc_codegen")


def test_a_hidden_import_is_seen(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("def late():\n    from ..drive import call\n    import grpc.aio\n")
    assert list(imports_of(module, "localrpc.wire")) == ["localrpc.drive.call", "grpc.aio"]


@pytest.mark.parametrize("floor", sorted({*PACKAGES} - COMING))
def test_an_import_goes_only_downwards(floor: str) -> None:
    if floor == "base":
        files = [(ROOT / "localrpc" / f"{name}.py", "localrpc") for name in sorted(BASE)]
    else:
        files = list(modules(f"localrpc/{floor}", f"localrpc.{floor}"))
    assert files
    assert list(climbing(floor, files)) == []


@pytest.mark.parametrize(
    ("floor", "other"), [("sync", "aio"), ("aio", "sync"), ("calls", "transports")]
)
def test_packages_of_one_row_do_not_import_each_other(
    tmp_path: Path, floor: str, other: str
) -> None:
    module = tmp_path / "module.py"
    module.write_text(f"from localrpc.{other} import module\nfrom localrpc import {floor}")
    found = list(climbing(floor, [(module, f"localrpc.{floor}")]))
    assert found == [f"{module}: localrpc.{other}.module"]


@pytest.mark.parametrize("package", STATES)
def test_a_state_does_not_wait(package: str) -> None:
    """So that any API can drive it; its tests need no peer."""
    for path, inside in modules(f"localrpc/{package}", f"localrpc.{package}"):
        for name in imports_of(path, inside):
            parts = name.split(".")
            assert not {parts[0], ".".join(parts[:2])} & WAITING, f"{path}: {name}"


# Where the time of a small call is spent, so that these call the core themselves.
HOT = {"unary", "handling"}


def test_an_api_leaves_the_core_to_what_is_below_it() -> None:
    """So that the code that drives the core can be shared with another API."""
    callers = set()
    for path, _ in modules("localrpc/sync", "localrpc.sync"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr.startswith("lr_"):
                callers.add(path.stem)
    assert callers == HOT


# The package gives out its module for tests, which uses the package as its users do.
CIRCLES = [{"localrpc", "localrpc.testing"}]


def dependencies(root: Path) -> dict[str, set[str]]:
    """Which modules each of the package's imports: anywhere, for types alone, or when asked."""
    files = {}
    for path in sorted((root / "localrpc").rglob("*.py")):
        *folders, name = path.relative_to(root).with_suffix("").parts
        files[".".join(folders if name == "__init__" else [*folders, name])] = path
    graph = {}
    for module, path in files.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        names = set(imports_of(path, package))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Later", "import_module"):
                names |= {str(arg.value) for arg in node.args if isinstance(arg, ast.Constant)}
        graph[module] = {
            found
            for name in names
            for found in (name, name.rpartition(".")[0])
            if found in files and found != module
        }
        # `from package import module` needs the package only for finding the module.
        graph[module] -= {name.rpartition(".")[0] for name in names if name in files}
    return graph


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The sets of modules that all reach each other, of two and more."""

    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for following in graph[waiting.pop()] - seen:
                seen.add(following)
                waiting.append(following)
        return seen

    reached = {module: reach(module) for module in graph}
    found: list[set[str]] = []
    for module in graph:
        circle = {other for other in reached[module] if module in reached[other]}
        if circle and circle not in found:
            found.append(circle)
    return found


def test_no_modules_import_each_other() -> None:
    found = [circle for circle in circles(dependencies(ROOT)) if circle not in CIRCLES]
    assert found == []


def test_a_circle_is_seen(tmp_path: Path) -> None:
    (tmp_path / "localrpc").mkdir()
    texts = {
        "__init__": "",
        "one": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from localrpc import two",
        "two": "three = Later('localrpc.three')",
        "three": "def late():\n    from localrpc.one import name",
        "four": "from localrpc.one import name",
    }
    for name, text in texts.items():
        (tmp_path / "localrpc" / f"{name}.py").write_text(text)
    assert circles(dependencies(tmp_path)) == [{"localrpc.one", "localrpc.two", "localrpc.three"}]


def test_every_module_has_a_floor() -> None:
    files = {path.stem for path in (ROOT / "localrpc").glob("*.py")}
    assert files == {"__init__", "__main__", *BASE, *TESTING}
    folders = {path.parent.name for path in (ROOT / "localrpc").glob("*/__init__.py")}
    others = {"cli", "bench", "integrations", "observe", "proxy", "workers"}
    assert folders == {*PACKAGES, *others} - {"base", *COMING}


# Besides the API: what dead processes have left in the runtime directory.
OF_COMMANDS = ("localrpc.aio", "localrpc.transports.leftovers")


@pytest.mark.parametrize(
    ("folder", "allowed"),
    # The benchmark looks below the API for its floors and for what a machine allows.
    [
        ("cli", {"bench", "errors", "observe", "options", "proxy", "workers"}),
        ("bench", {"_core", "address", "options", "transports"}),
    ],
)
def test_commands_use_the_public_api(folder: str, allowed: set[str]) -> None:
    for path, package in modules(f"localrpc/{folder}", f"localrpc.{folder}"):
        for name in imports_of(path, package):
            if name.startswith("localrpc.") and not name.startswith(OF_COMMANDS):
                assert name.split(".")[1] in {folder, *allowed}, f"{path}: {name}"


# A worker's program, which serves as users do. The others are a supervisor's.
OF_WORKERS = {
    *("application", "clashes", "extras", "loading", "preloader", "run_worker", "worker"),
}


def test_a_supervisor_knows_no_calls_and_a_worker_the_public_api() -> None:
    for path, package in modules("localrpc/workers", "localrpc.workers"):
        for name in imports_of(path, package):
            if not name.startswith("localrpc."):
                allowed = path.stem in OF_WORKERS or not is_foreign(name)
                assert allowed or name.startswith("watchfiles."), f"{path}: {name}"
            elif path.stem in OF_WORKERS:
                assert name.split(".")[1] in {"aio", "workers"}, f"{path}: {name}"
            elif name != "localrpc.drive.notify.notify":
                assert name.split(".")[1] in {
                    "_locks",
                    "errors",
                    "observe",
                    "options",
                    "transports",
                    "workers",
                }
                assert name.split(".")[-1].lower() not in OF_WORKERS, f"{path}: {name}"


# Besides the API: what targets say, and what a service manager is told.
OF_PROXIES = {
    "localrpc.aio",
    "localrpc.errors.AddressError",
    "localrpc.transports.parse_target",
    "localrpc.workers.notifying.Manager",
}


def test_a_proxy_uses_the_public_api() -> None:
    for path, package in modules("localrpc/proxy", "localrpc.proxy"):
        for name in imports_of(path, package):
            if name.startswith("localrpc."):
                allowed = name.startswith("localrpc.proxy.") or name in OF_PROXIES
                assert allowed, f"{path}: {name}"
            else:
                assert not is_foreign(name) or name.split(".")[0] == "grpc", f"{path}: {name}"


@pytest.mark.parametrize("module", TESTING)
def test_help_for_tests_uses_the_public_api(module: str) -> None:
    path = ROOT / "localrpc" / f"{module}.py"
    for name in imports_of(path, "localrpc"):
        if name.startswith("localrpc."):
            public = {"_later", "aio", "testing", "transports"}
            assert name.split(".")[1] in public, f"{path}: {name}"
        else:
            assert not is_foreign(name) or name.split(".")[0] in TESTING[module], f"{path}: {name}"


def test_an_integration_uses_the_public_api_and_its_library() -> None:
    files = dict(modules("localrpc/integrations", "localrpc.integrations"))
    assert {path.stem for path in files} == {"__init__", *INTEGRATIONS}
    for path, package in files.items():
        for name in imports_of(path, package):
            assert name.startswith((*PUBLIC[1:], "localrpc.integrations._metrics")) or (
                name in PUBLIC or not name.startswith("localrpc.")
            ), name
            if is_foreign(name):
                allowed = {"grpc", *INTEGRATIONS.get(path.stem, ())}
                assert name.split(".")[0] in allowed, f"{path}: {name}"


def test_the_generator_needs_protobuf_alone() -> None:
    for path, package in modules("codegen", "localrpc_codegen"):
        for name in imports_of(path, package):
            ours = name.startswith("localrpc_codegen.")
            assert ours or not is_foreign(name) or name.startswith("google.protobuf"), (
                f"{path}: {name}"
            )
            assert not name.startswith("localrpc."), f"{path}: {name}"

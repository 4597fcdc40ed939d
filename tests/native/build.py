"""C programs linked with the whole core, which is compiled once in a run of tests."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.skips import need

HERE = Path(__file__).resolve().parent
CORE = HERE.parents[1] / "localrpc" / "_core" / "src"
SANITIZERS = {
    "address": ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "thread": ("-O1", "-fsanitize=thread"),
}
_ALWAYS = ("-std=gnu11", "-g1", "-Wall", "-Wextra", "-Werror", "-pthread")


@contextlib.contextmanager
def shared(factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """A folder that all of pytest's processes in this run share; it is locked by one at a time."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def compile_native(
    source: Path, factory: pytest.TempPathFactory, flags: Sequence[str], *link: str
) -> Path:
    """The program of `source`; `flags` are for the compiler, `link` for the linker alone."""
    command = [need("gcc"), *_ALWAYS, *flags]
    with shared(factory, _folder(flags)) as folder:
        program = folder / source.stem
        if not program.exists():
            core = _objects(command, folder)
            subprocess.run([*command, source, *core, *link, "-o", program], check=True)
    return program


def core_objects(factory: pytest.TempPathFactory, flags: Sequence[str]) -> list[Path]:
    """The core's object files: FOLDER-FILE.o for each src/FOLDER/FILE.c."""
    with shared(factory, _folder(flags)) as folder:
        return _objects([need("gcc"), *_ALWAYS, *flags], folder)


def _folder(flags: Sequence[str]) -> str:
    return "native" + "".join(flags).translate({ord(c): "_" for c in "=,/"})


def _objects(command: Sequence[str], folder: Path) -> list[Path]:
    def compile_one(source: Path) -> Path:
        place = folder / f"{source.parent.name}-{source.stem}.o"
        if not place.exists():
            subprocess.run([*command, "-c", source, "-o", place], check=True)
        return place

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compile_one, sorted(CORE.rglob("*.c"))))

"""Compiles the fuzz targets: with libFuzzer (clang), or with main.c, which replays inputs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORE = HERE.parents[1] / "localrpc" / "_core" / "src"
HARNESS = (
    "world.c",
    "wire.c",
    "memlink.c",
    "actor.c",
    "calling.c",
    "serving.c",
    "peer.c",
    "bytes.c",
)
_ENGINE = tuple(f"engine/{path.stem}" for path in sorted((CORE / "engine").glob("*.c")))
FUZZED = {
    "dispatch": _ENGINE,
    "pair": _ENGINE,
    "looped": _ENGINE,
    "ring": ("links/ring",),
    "stream": ("links/stream", "links/writer", "links/socket", "links/pipe", "util/iov"),
    "queues": ("links/mqueue", "links/sysv"),
    "spool": ("links/spool", "links/folder"),
}
"""The files of the core that each target covers; fuzz_TARGET.c begins with its invariant."""
TARGETS = tuple(FUZZED)
PYTHON_TARGET = "greeting"

WRAPPED: tuple[str, ...] = ("syscall", "clock_gettime", "clock_nanosleep", "nanosleep", "ppoll")
WRAPPED += ("sched_getcpu", "sched_yield", "lr_start_thread", "malloc", "calloc", "realloc")
"""What world.c does in place of the system, while an input runs."""

_WARNINGS = ["-std=gnu11", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"]
_CHECKS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
CLANG = ("clang", "clang-19", "clang-17", "clang-14")
GCC = ("gcc", "cc", *CLANG)


def compiler(names: Sequence[str]) -> str:
    """The first of these that is installed; LookupError if none is."""
    for name in names:
        if found := shutil.which(name):
            return found
    raise LookupError(f"{' or '.join(names)} is needed: `apt-get install {names[0]}`")


def _build(
    folder: Path,
    command: list[str],
    targets: Sequence[str],
    *more: str,
    core: Sequence[Path] | None = None,
) -> dict[str, Path]:
    """Each target's program in `folder`; only what has changed since is compiled again.

    `core` has the core's object files, if they are compiled already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    newest = max(path.stat().st_mtime for path in [*CORE.rglob("*.h"), *HERE.glob("*.h")])

    def compile_one(source: Path) -> Path:
        place = folder / f"{source.parent.name}-{source.stem}.o"
        if not place.exists() or place.stat().st_mtime < max(newest, source.stat().st_mtime):
            subprocess.run([*command, *_WARNINGS, "-c", source, "-o", place], check=True)
        return place

    def link_one(target: str, objects: list[Path]) -> Path:
        program = folder / target
        if program.exists() and program.stat().st_mtime >= max(o.stat().st_mtime for o in objects):
            return program
        wraps = [f"-Wl,--wrap={name}" for name in WRAPPED]
        subprocess.run([*command, "-pthread", *objects, *wraps, "-o", program], check=True)
        return program

    shared = [HERE / name for name in (*HARNESS, *more)]
    if core is None:
        shared += sorted(CORE.rglob("*.c"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = [*pool.map(compile_one, shared), *(core or ())]
        mains = pool.map(compile_one, [HERE / f"fuzz_{target}.c" for target in targets])
        programs = pool.map(
            lambda pair: link_one(pair[0], [pair[1], *objects]), zip(targets, mains, strict=True)
        )
        return dict(zip(targets, programs, strict=True))


def build_replays(
    folder: Path, targets: Sequence[str] = TARGETS, *, core: Sequence[Path] | None = None
) -> dict[str, Path]:
    """Programs that run the inputs they are given, under AddressSanitizer and UBSan."""
    return _build(folder, [compiler(GCC), "-O1", *_CHECKS], targets, "main.c", core=core)


def build_fuzzers(folder: Path, targets: Sequence[str] = TARGETS) -> dict[str, Path]:
    """The same with libFuzzer in place of main.c."""
    return _build(folder, [compiler(CLANG), "-O1", *_CHECKS, "-fsanitize=fuzzer"], targets)


def build_coverage(folder: Path, targets: Sequence[str] = TARGETS) -> dict[str, Path]:
    """Programs that run inputs, and write what clang's source coverage counts."""
    flags = ["-O0", "-fprofile-instr-generate", "-fcoverage-mapping"]
    return _build(folder, [compiler(CLANG), *flags], targets, "main.c")

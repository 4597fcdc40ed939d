"""Many random schemas at once: generate, import, type-check, use, call.

    python -m tests.codegen.fuzz [--seconds 60] [--schemas 40] [--first SEED]

Prints a line a batch, and of a batch that fails what each tool said; `--first SEED --schemas 1`
shows one schema again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from localrpc_codegen import Imports, Settings
from localrpc_codegen.driver import GenerateError, Job, prepare
from localrpc_codegen.layout import Layout
from localrpc_codegen.stub_types import Schema

from tests.checkers import strict_mypy

from .exercise import program
from .schemas import schema

ROOT = Path(__file__).parents[2]
USE = """
import importlib, inspect, pkgutil, sys, typing
folder, prefix, *names = sys.argv[1:]
for name in names:
    importlib.import_module(name)
for info in pkgutil.walk_packages([folder], prefix):
    module = importlib.import_module(info.name)
    for found in list(vars(module).values()) if info.name.endswith("_localrpc") else ():
        if getattr(found, "__module__", "") == info.name:
            for function in (found, *filter(inspect.isfunction, vars(found).values())):
                typing.get_type_hints(function)
"""


@dataclass(frozen=True)
class Batch:
    """The folder of a batch: protos, the modules in `protocol`, programs that use them."""

    folder: Path
    seeds: tuple[int, ...]
    imports: Imports

    @property
    def modules(self) -> Path:
        return self.folder / "protocol"

    @property
    def relative(self) -> bool:
        """True if `protocol` is a package, and not a folder on sys.path."""
        return self.imports is Imports.RELATIVE

    def run(self, *arguments: str | Path, timeout: float = 600) -> str:
        """What a Python process said that failed, or nothing."""
        own = [] if self.relative else [self.modules]
        paths = [*own, self.folder]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", *map(str, arguments)],
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, [*paths, ROOT, ROOT / ".dev"])),
                "MYPYPATH": os.pathsep.join(map(str, paths)),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        return (done.stdout + done.stderr) if done.returncode else ""


def run_batch(
    seeds: Iterable[int],
    folder: Path,
    *,
    imports: Imports = Imports.RELATIVE,
    pyright: bool = False,
    only: str | None = None,
    cache: Path | None = None,
) -> dict[str, str]:
    """What each step said that failed, by its name; empty if the whole batch is right.

    With `only` a single step is made. `cache` is mypy's; usually batches in one folder share one.
    """
    batch = Batch(folder, tuple(seeds), imports)
    try:
        _generate(batch)
    except GenerateError as error:
        return {"generate": str(error)}
    names = [f"use_{seed}" for seed in batch.seeds]
    packages = ["protocol"] if batch.relative else [f"s{seed}" for seed in batch.seeds]
    roundtrip = ("-m", "tests.codegen.roundtrip")
    where = () if batch.relative else (batch.modules,)
    mypy: tuple[str | Path, ...] = (
        *(*strict_mypy(cache or folder.parent / "mypy-cache"), "--no-error-summary"),
        *(f"--module={name}" for name in names),
        *(f"--package={name}" for name in packages),
    )
    steps: dict[str, tuple[str | Path, ...]] = {
        "use": ("-c", USE, batch.modules, "protocol." if batch.relative else "", *names),
        "mypy": mypy,
        "grpcio": (*roundtrip, "grpcio", f"unix:{folder}/g", *where),
        "grpcio-aio": (*roundtrip, "grpcio-aio", f"unix:{folder}/a", *where),
        "localrpc": (*roundtrip, "localrpc", f"unix:{folder}/l", *where),
    }
    if pyright:
        programs = [f"{name}.py" for name in names]
        steps["pyright"] = ("-m", "pyright", "--pythonpath", sys.executable, "protocol", *programs)
    if only is not None:
        steps = {only: steps[only]}
    said = {step: batch.run(*arguments) for step, arguments in steps.items()}
    return {step: text for step, text in said.items() if text}


def _generate(batch: Batch) -> None:
    """Write the modules, and a program for each schema."""
    protos = batch.folder / "protos"
    batch.modules.mkdir(parents=True)
    names: dict[int, list[str]] = {}
    for seed in batch.seeds:
        for name, text in schema(seed).items():
            (protos / name).parent.mkdir(parents=True, exist_ok=True)
            (protos / name).write_text(text)
            names.setdefault(seed, []).append(name)
    prepare(Job([protos], batch.modules, settings=Settings(batch.imports))).write()
    if not batch.relative:
        for folder in {path.parent for path in batch.modules.rglob("*.py")} - {batch.modules}:
            for package in [folder, *folder.parents]:
                if batch.modules in package.parents:
                    (package / "__init__.py").touch()
    files = _descriptors(batch.folder, [name for own in names.values() for name in own])
    ours = {name for name in files if not name.startswith("google/")}
    everything = Schema(files, Layout(ours, batch.imports, tidy=True))
    for seed, own in names.items():
        text = program(everything, "protocol." if batch.relative else "", own)
        (batch.folder / f"use_{seed}.py").write_text(text)


def _descriptors(folder: Path, names: list[str]) -> dict[str, FileDescriptorProto]:
    arguments = folder / "arguments"
    arguments.write_text(
        "\n".join(
            [
                f"-I{folder}/protos",
                "--include_imports",
                f"--descriptor_set_out={folder}/set",
                *names,
            ]
        )
    )
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"@{arguments}"],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    found = FileDescriptorSet.FromString((folder / "set").read_bytes()).file
    return {file.name: file for file in found}


def main() -> None:
    """Run batches for a time; exit with 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--schemas", type=int, default=40)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for the batches, which then stay")
    options = parser.parse_args()
    failed = run_for(options.seconds, options.schemas, options.first, options.keep)
    sys.exit(bool(failed))


def run_for(
    seconds: float, schemas: int = 40, first: int = 0, keep: Path | None = None, pyright: int = 4
) -> list[str]:
    """Batches of so many schemas until the time is over; what failed, with the seeds."""
    failed = []
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="schemas-") as scratch:
        number = 0
        while True:
            seeds = range(first + number * schemas, first + (number + 1) * schemas)
            folder = (keep or Path(scratch)).resolve() / str(seeds.start)
            imports = Imports.ABSOLUTE if number % 3 == 2 else Imports.RELATIVE
            said = run_batch(seeds, folder, imports=imports, pyright=number % pyright == 0)
            print(f"{seeds.start} to {seeds.stop - 1}: {', '.join(said) or 'right'}", flush=True)
            for step, text in said.items():
                failed.append(f"seeds {seeds.start} to {seeds.stop - 1}, {step}:\n{text}")
                print(text, flush=True)
            number += 1
            if time.monotonic() > end:
                return failed


if __name__ == "__main__":
    main()

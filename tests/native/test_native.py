"""The core under sanitizers: stress.c says what it does and what must hold."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.skips import need

HERE = Path(__file__).resolve().parent
CORE = HERE.parents[1] / "localrpc" / "_core" / "src"
SANITIZERS = {
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-fsanitize=thread"],
}
KINDS = ("ring", "signal", "futex", "spin", "stream", "pipe", "mq", "sysvmq")
ROUNDS = 24


def compile_native(source: str, folder: Path, flags: list[str]) -> Path:
    """`source`, of this folder, with the whole core."""
    compiler = need("gcc")
    binary = folder / Path(source).stem
    command = [compiler, "-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"]
    command += [*flags, str(HERE / source), *map(str, sorted(CORE.glob("*.c")))]
    subprocess.run([*command, "-o", str(binary)], check=True)
    return binary


@pytest.fixture(scope="module", params=SANITIZERS)
def stress(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("native")
    return compile_native("stress.c", folder, SANITIZERS[request.param])


@pytest.mark.parametrize("kind", KINDS)
def test_every_call_ends_as_it_should_and_no_sanitizer_objects(stress: Path, kind: str) -> None:
    done = subprocess.run(
        [stress, kind, str(ROUNDS), "1"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"{kind}: " in done.stdout


def test_the_earliest_deadline_is_found_and_each_call_leaves_from_its_place(tmp_path: Path) -> None:
    binary = compile_native("deadlines.c", tmp_path, SANITIZERS["address"])
    done = subprocess.run([binary], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-4000:]

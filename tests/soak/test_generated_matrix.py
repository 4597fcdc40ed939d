"""Round trips of generated code with every supported Python, protobuf and grpcio.

Each environment is a fresh one that pip fills, so this runs at full length only
(LOCALRPC_SOAK=full, or tests/run --soak) and takes some minutes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.oldest import floors
from tests.skips import cannot, only_where

ROOT = Path(__file__).parents[2]
PROTOS = ROOT / "tests/codegen/protos"
SOURCES = (ROOT, ROOT / ".dev")
NEEDED = ("cffi", "click", "googleapis-common-protos", "grpcio-tools", "tomli")
OLDEST_PROTOBUF = floors()["protobuf"]
# The oldest that pyproject.toml allows, and the oldest that has a wheel for 3.13.
OLDEST_GRPCIO = {"3.10": "1.60.0", "3.13": "1.66.2"}
BACKENDS = (
    ("grpcio", "unix"),
    ("grpcio-aio", "unix"),
    ("localrpc", "unix"),
    ("localrpc", "shm"),
)

pytestmark = [
    only_where(
        os.environ.get("LOCALRPC_SOAK") == "full",
        "fills four environments by pip, only with LOCALRPC_SOAK=full: ./tests/run --soak",
    ),
    pytest.mark.timeout(900),
]


def find_python(version: str) -> Path:
    """An interpreter of that version from PATH or from pyenv; without one the test is skipped."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions")
    found = [Path(path)] if (path := shutil.which(f"python{version}")) else []
    found += sorted(pyenv.glob(f"{version}.*/bin/python"))
    for python in found:
        # A shim of pyenv's is on PATH even if it leads nowhere.
        said = subprocess.run([python, "-c", "import ensurepip, venv"], capture_output=True)
        if said.returncode == 0:
            return python
    return cannot(
        f"no CPython {version} with venv and ensurepip, neither python{version} on PATH nor "
        f"{pyenv}/{version}.*"
    )


def run(*command: str | Path, path: Iterable[Path] = (), cwd: Path | None = None) -> str:
    done = subprocess.run(
        [*map(str, command)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.fail(f"{' '.join(map(str, command))}:\n{done.stdout}{done.stderr}", pytrace=False)
    return done.stdout


def pip(python: Path, *arguments: str | Path) -> None:
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments)


@dataclass(frozen=True)
class Environment:
    """A virtual environment, the package `protocol` that was generated in it, an old grpcio."""

    python: Path
    protos: Path
    output: Path
    old_grpcio: Path


Environments = Callable[[str, str], Environment]


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Environments:
    """Environments by Python's version and protobuf's age, each made once."""
    made: dict[tuple[str, str], Environment] = {}

    def make(version: str, protobuf: str) -> Environment:
        folder = tmp_path_factory.mktemp(f"{version}-{protobuf}")
        run(find_python(version), "-m", "venv", folder / "venv")
        python = folder / "venv/bin/python"
        pip(python, *NEEDED, f"protobuf=={OLDEST_PROTOBUF}" if protobuf == "oldest" else "protobuf")
        old = folder / "old"
        pip(python, "--no-deps", "--target", old, f"grpcio=={OLDEST_GRPCIO[version]}")
        (folder / "out/protocol").mkdir(parents=True)
        # Before protobuf 5.27, protoc has no editions.
        ignored = shutil.ignore_patterns("edition*.proto" if protobuf == "oldest" else "")
        protos = shutil.copytree(PROTOS, folder / "protos", ignore=ignored)
        command = ("-m", "localrpc.cli", "generate", protos, "--python", version)
        run(python, *command, "--out", folder / "out/protocol", path=SOURCES)
        return Environment(python, protos, folder / "out", old)

    def get(version: str, protobuf: str) -> Environment:
        if (version, protobuf) not in made:
            made[version, protobuf] = make(version, protobuf)
        return made[version, protobuf]

    return get


@pytest.mark.parametrize("grpcio", ["oldest", "newest"])
@pytest.mark.parametrize(
    ("generated_with", "run_with"),
    [("oldest", "oldest"), ("oldest", "newest"), ("newest", "newest")],
)
@pytest.mark.parametrize("version", ["3.10", "3.13"])
def test_every_method_answers(
    environments: Environments,
    version: str,
    generated_with: str,
    run_with: str,
    grpcio: str,
) -> None:
    generated = environments(version, generated_with)
    environment = environments(version, run_with)
    old = [environment.old_grpcio] if grpcio == "oldest" else []
    path = (*old, generated.output, *SOURCES)
    told = "import google.protobuf, grpc; print(google.protobuf.__version__, grpc.__version__)"
    protobuf_is, grpcio_is = run(environment.python, "-c", told, path=path).split()
    assert (protobuf_is == OLDEST_PROTOBUF) == (run_with == "oldest")
    assert (grpcio_is == OLDEST_GRPCIO[version]) == (grpcio == "oldest")
    rpcs = sum(
        len(re.findall(r"^\s*rpc ", proto.read_text(), re.MULTILINE))
        for proto in generated.protos.rglob("*.proto")
    )
    for backend, scheme in BACKENDS:
        with tempfile.TemporaryDirectory(prefix="rt") as folder:
            command = ("-W", "ignore", "-m", "tests.codegen.roundtrip", backend)
            target = f"{scheme}:{folder}/s"
            said = run(environment.python, *command, target, path=path, cwd=generated.output)
        *names, last = said.splitlines()
        assert last == "left out: UNIMPLEMENTED"
        assert len(set(names)) == rpcs, backend

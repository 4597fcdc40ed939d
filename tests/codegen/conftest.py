"""One run of protoc and one of mypy serve every test here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from localrpc_codegen.driver import Job, prepare

HERE = Path(__file__).parent
PROTOS = HERE / "protos"
USERS = HERE / "users"
ROOT = HERE.parents[1]


@dataclass(frozen=True)
class Generated:
    """A folder that holds the package `protocol`, made from every proto in tests/codegen/protos."""

    folder: Path

    @property
    def package(self) -> Path:
        return self.folder / "protocol"

    @property
    def environment(self) -> Mapping[str, str]:
        paths = [self.folder, ROOT, ROOT / ".dev"]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run Python in a separate process, where `import protocol` works."""
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=self.folder,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=100,
        )

    def services(self) -> list[Path]:
        return sorted(self.package.rglob("*_localrpc.py"))


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Generated:
    output = Generated(tmp_path_factory.mktemp("generated"))
    output.package.mkdir()
    prepare(Job([PROTOS], output.package)).write()
    return output


@dataclass(frozen=True)
class Reports:
    """What mypy said, by file name; each is a line number and a code."""

    text: str

    def of(self, name: str) -> list[tuple[int, str]]:
        pattern = rf"^(?:\S*/)?{re.escape(name)}:(\d+): error: .*  \[([\w-]+)\]$"
        return [(int(line), code) for line, code in re.findall(pattern, self.text, re.MULTILINE)]


@pytest.fixture(scope="session")
def mypy(generated: Generated) -> Reports:
    for program in USERS.glob("*.py"):
        (generated.folder / program.name).write_text(program.read_text())
    done = generated.run(
        *("-m", "mypy", "--strict", "--no-error-summary", "--config-file", os.devnull),
        *("--enable-error-code", "deprecated", "--python-version", "3.10"),
        *("--cache-dir", os.devnull, "-p", "protocol", "-m", "right", "-m", "wrong"),
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return Reports(done.stdout)

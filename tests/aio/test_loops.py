"""The tests of this folder pass on other loops than asyncio's own, too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.skips import needs

ROOT = Path(__file__).resolve().parents[2]
FILES = ("calls", "ends", "interceptors", "complaints", "complaints_client", "complaints_server")


@pytest.mark.parametrize(
    "plugin", [pytest.param("with_uvloop", marks=needs("uvloop")), "with_spinning"]
)
def test_calls_ends_and_complaints_on_such_loops(runtime_directory: str, plugin: str) -> None:
    """Over a ring and a socket: what a loop watches is the same for all transports."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", f"tests.aio.{plugin}"),
            *("-p", "no:cacheprovider", "-k", "not (pipe or mq or file or tcp or inproc)"),
            *(f"tests/aio/test_{name}.py" for name in FILES),
        ],
        cwd=ROOT,
        env={**os.environ, "LOCALRPC_RUNTIME_DIR": runtime_directory},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]

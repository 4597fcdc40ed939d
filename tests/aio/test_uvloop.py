"""The tests of this folder pass on uvloop's loops, too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.skips import needs

ROOT = Path(__file__).resolve().parents[2]
FILES = ("calls", "ends", "interceptors", "complaints", "complaints_client", "complaints_server")


@needs("uvloop")
def test_calls_ends_and_complaints_on_uvloop(runtime_directory: str, tmp_path: Path) -> None:
    """Over a ring and a socket: what a loop watches is the same for all transports.

    With a base folder of its own: pytest makes the one that all its runs share private again,
    and test_access opens it to another user.
    """
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "tests.aio.with_uvloop"),
            f"--basetemp={tmp_path / 'base'}",
            *("-p", "no:cacheprovider", "-k", "not (pipe or mq or file or tcp or inproc)"),
            *(f"tests/aio/test_{name}.py" for name in FILES),
        ],
        cwd=ROOT,
        env={**os.environ, "LOCALRPC_RUNTIME_DIR": runtime_directory},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from localrpc.transports import handshake, scheme_for
from tests.ports import free_port
from tests.skips import cannot, need

from . import request_places
from .helpers import wait_until


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Not pytest's, because other users have to get to some of them.

    Each further run of pytest makes the base folder of all runs private again.
    """
    with tempfile.TemporaryDirectory(prefix="lrt") as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def runtime_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "rt"
    monkeypatch.setenv("LOCALRPC_RUNTIME_DIR", str(path))
    return path


@pytest.fixture(autouse=True)
def _no_descriptor_is_left_over() -> Iterator[None]:
    before = _descriptors()
    yield
    # What another suite left to the garbage collector may have gone meanwhile, and
    # grpcio's threads close a socket a moment after its server has stopped.
    wait_until(lambda: not _descriptors() - before)


# Not eventfds: grpcio, once awake, opens and closes some of its own at every fork.
_OURS = ("socket:", "/memfd:", "anon_inode:[pidfd]", "pipe:", "/dev/null")


def _descriptors() -> Counter[str]:
    links = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            links.append(os.readlink(f"/proc/self/fd/{number}"))
    return Counter(link for link in links if link.startswith(_OURS))


@pytest.fixture(autouse=True)
def _fresh_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "_warned", set())


@pytest.fixture(scope="session")
def pid_namespaces() -> None:
    if subprocess.run([need("unshare"), "-p", "-f", "true"]).returncode:
        cannot("needs the right to have a PID namespace, as root has it outside containers")


@pytest.fixture(scope="session")
def ipc_namespaces() -> None:
    if subprocess.run([need("unshare"), "-i", "true"]).returncode:
        cannot("needs the right to have an IPC namespace, as root has it outside containers")


SCHEMES = ("shm", "unix", "unix-abstract", "tcp", "inproc")


def _target(scheme: str, folder: Path) -> str:
    if scheme in request_places.KINDS:
        return request_places.target_of(scheme, folder)
    bodies = {
        "unix": f"{folder}/socket",
        "unix-abstract": f"{folder}",
        "tcp": f"127.0.0.1:{free_port()}",
    }
    return f"{scheme}:{bodies.get(scheme, 'server')}"


@pytest.fixture(params=SCHEMES)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return _target(request.param, tmp_path)


@pytest.fixture(params=[scheme for scheme in SCHEMES if scheme_for(scheme).connects_processes])
def two_process_target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a client finds a server of another process."""
    return _target(request.param, tmp_path)


FILES = ("shm", "unix")


@pytest.fixture(params=FILES)
def named_target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A target whose name is a file, with a socket behind it."""
    return _target(request.param, tmp_path)


@pytest.fixture(params=FILES + request_places.KINDS)
def lasting_target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A target whose name is still there when its server has been killed."""
    return _target(request.param, tmp_path)


@pytest.fixture(params=SCHEMES + request_places.KINDS)
def any_target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return _target(request.param, tmp_path)

"""The targets that every suite of whole calls runs over: a new transport adds a line."""

from __future__ import annotations

import itertools
import os
import signal
import tempfile
from collections.abc import Iterator

import pytest

from tests.ports import free_port

TARGETS = {
    "shm-eventfd": "shm:{name}?wakeup=eventfd",
    "shm-signal": "shm:{name}?wakeup=signal",
    "shm-futex": "shm:{name}?wakeup=futex",
    "shm-spin": "shm:{name}?wakeup=spin",
    "shm-posix": "shm:{name}?memory=posix",
    "shm-sysv": "shm:{name}?memory=sysv",
    "unix": "unix:{directory}/{name}.sock",
    "unix-abstract": "unix-abstract:{unique}-{name}",
    "tcp": "tcp:127.0.0.1:{port}",
}

# A shell lets what it puts into the background ignore SIGINT, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_numbers = itertools.count(1)


@pytest.fixture(scope="session", autouse=True)
def runtime_directory() -> Iterator[str]:
    """Names of this run only; not tmp_path, because a socket's path has 107 bytes."""
    before = os.environ.get("LOCALRPC_RUNTIME_DIR")
    with tempfile.TemporaryDirectory(prefix="lrt") as directory:
        os.environ["LOCALRPC_RUNTIME_DIR"] = directory
        yield directory
    if before is None:
        del os.environ["LOCALRPC_RUNTIME_DIR"]
    else:
        os.environ["LOCALRPC_RUNTIME_DIR"] = before


def fresh_target(kind: str, directory: str) -> str:
    """A target at which nobody listens yet."""
    name, unique = f"t{next(_numbers)}", f"lrt{os.getpid()}"
    port = free_port()
    return TARGETS[kind].format(name=name, directory=directory, unique=unique, port=port)


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest, runtime_directory: str) -> str:
    """One test for every transport and wake-up kind."""
    return fresh_target(request.param, runtime_directory)


@pytest.fixture
def one_target(runtime_directory: str) -> str:
    """For what does not depend on the transport."""
    return fresh_target("shm-eventfd", runtime_directory)

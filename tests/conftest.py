"""The targets that every suite of whole calls runs over: a new transport adds a line."""

from __future__ import annotations

import fcntl
import itertools
import os
import re
import signal
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import hypothesis
import pytest

from localrpc._core import lib
from localrpc.transports import mq, scheme_for, sysvmq
from tests import own_ipc
from tests.ports import free_port
from tests.skips import pytest_configure, pytest_runtest_setup, pytest_terminal_summary

__all__ = ["pytest_configure", "pytest_runtest_setup", "pytest_terminal_summary"]

# No test depends on how fast the machine is, and those that run beside it.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")

TARGETS = {
    "shm-eventfd": "shm:{name}?wakeup=eventfd",
    "shm-signal": "shm:{name}?wakeup=signal",
    "shm-futex": "shm:{name}?wakeup=futex",
    "shm-spin": "shm:{name}?wakeup=spin",
    "shm-posix": "shm:{name}?memory=posix",
    "shm-sysv": "shm:{name}?memory=sysv",
    "unix": "unix:{directory}/{name}.sock",
    "unix-abstract": "unix-abstract:{unique}-{name}",
    "pipe": "pipe:{directory}/{name}.fifo",
    "mq": "mq:{name}",
    "sysvmq": "sysvmq:{name}",
    "file": "file:{directory}/{name}.spool",
    "tcp": "tcp:127.0.0.1:{port}",
    "inproc": "inproc:{name}",
}
TWO_PROCESSES = [
    kind for kind, text in TARGETS.items() if scheme_for(text.partition(":")[0]).connects_processes
]
"""Those at which a client finds a server of another process."""

LIKE_ANOTHER = ("shm-spin", "shm-posix", "shm-sysv", "unix-abstract")
"""They differ from another kind in how bytes are stored or how no side sleeps: calls, links and
deaths are tried with them, but not what depends on the engine alone."""
DISTINCT = [kind for kind in TARGETS if kind not in LIKE_ANOTHER]

SOAKED = ("shm-eventfd", "shm-futex", "unix", "mq", "file")
"""Where an ordinary run does in short what tests/soak does for long: one of each technique."""

FULL = os.environ.get("LOCALRPC_SOAK") == "full"
"""True in `./tests/run --soak`, which takes hours and tries every combination."""

SPREAD = 3


def spread(kinds: list[str], names: Iterable[str]) -> list[Any]:
    """Parameters `target, name` for what costs a process and depends little on the transport.

    Each name with a ring and a stream, and with one of SPREAD of the other kinds, so that each
    kind meets some of the names. `target` is to be a fixture of kinds.
    """
    everywhere = {"shm-eventfd", "unix"}
    return [
        pytest.param(kind, name, id=f"{kind}-{name}")
        for at, kind in enumerate(kinds)
        for number, name in enumerate(names)
        if kind in everywhere or number % SPREAD == at % SPREAD
    ]


# Where grpcio carries the calls: for suites that know nothing of what is ours.
FOREIGN_TARGETS = {"grpc": "grpc:127.0.0.1:{port}"}

# A shell lets what it puts into the background ignore SIGINT, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# As pyproject.toml has it for the tests: a program that a test starts ends with its first warning.
os.environ["PYTHONWARNINGS"] = "error,ignore:This process:DeprecationWarning"

_numbers = itertools.count(1)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Iterator[None]:
    """Give each process that runs tests its own queues and segments."""
    with own_ipc.entered():
        return (yield)


LONG = ("workers/", "codegen/test_schemas.py", "test_package.py", "site/", "examples/")
"""Files of tests that take seconds each and mostly wait: no process should be left with them alone
at the end."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the long ones first."""
    here = os.path.dirname(__file__)
    items.sort(key=lambda item: not os.path.relpath(item.path, here).startswith(LONG))


@pytest.fixture(scope="session", autouse=True)
def runtime_directory() -> Iterator[str]:
    """Names of this run only; not tmp_path, because a socket's path has 107 bytes."""
    before = os.environ.get("LOCALRPC_RUNTIME_DIR")
    with tempfile.TemporaryDirectory(prefix="lrt") as directory:
        os.environ["LOCALRPC_RUNTIME_DIR"] = directory
        yield directory
        for kind in (mq, sysvmq):
            kind.registered.sweep(directory)  # no directory takes these with it
    if before is None:
        del os.environ["LOCALRPC_RUNTIME_DIR"]
    else:
        os.environ["LOCALRPC_RUNTIME_DIR"] = before


@pytest.fixture(scope="session", autouse=True)
def _page() -> None:
    """The first server or channel of a process opens its page: before tests count descriptors."""
    lib.lr_page_note(b"")


@pytest.fixture(autouse=True)
def _one_at_a_time_with_queues(request: pytest.FixtureRequest) -> Iterator[None]:
    """Test runs side by side share what one user may have in POSIX queues: 32 or so."""
    if not re.search(r"(?<![a-z])mq", request.node.nodeid):
        yield
        return
    with open(os.path.join(tempfile.gettempdir(), f"lrt-mq-{os.geteuid()}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        fcntl.flock(lock, fcntl.LOCK_UN)  # a forked child that is left would keep it


def fresh_target(kind: str, directory: str) -> str:
    """Return a target without a server."""
    name, unique = f"t{next(_numbers)}", f"lrt{os.getpid()}"
    target = (TARGETS | FOREIGN_TARGETS)[kind]
    port = free_port() if "{port}" in target else 0
    return target.format(name=name, directory=directory, unique=unique, port=port)


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest, runtime_directory: str) -> str:
    """One test for every transport and wake-up kind, with both ends in this process."""
    return fresh_target(request.param, runtime_directory)


@pytest.fixture(params=TWO_PROCESSES)
def two_process_target(request: pytest.FixtureRequest, runtime_directory: str) -> str:
    """One test for every transport and wake-up kind, with ends in several processes.

    Suites of such tests alone have it under the name `target`.
    """
    return fresh_target(request.param, runtime_directory)


@pytest.fixture(params=TWO_PROCESSES if FULL else SOAKED)
def soaked_target(request: pytest.FixtureRequest, runtime_directory: str) -> str:
    """Like `two_process_target`; an ordinary run has a few."""
    return fresh_target(request.param, runtime_directory)


@pytest.fixture(params=DISTINCT)
def distinct_target(request: pytest.FixtureRequest, runtime_directory: str) -> str:
    """Like `target`, without the kinds that are much like another."""
    return fresh_target(request.param, runtime_directory)


@pytest.fixture(params=[kind for kind in TWO_PROCESSES if kind in DISTINCT])
def distinct_two_process_target(request: pytest.FixtureRequest, runtime_directory: str) -> str:
    """Like `two_process_target`, without the kinds that are much like another."""
    return fresh_target(request.param, runtime_directory)


@pytest.fixture(params=[*(TARGETS if FULL else DISTINCT), *FOREIGN_TARGETS])
def distinct_or_foreign_target(request: pytest.FixtureRequest, runtime_directory: str) -> str:
    """Like `distinct_target`, and over grpcio too."""
    return fresh_target(request.param, runtime_directory)


@pytest.fixture(params=[*TARGETS, *FOREIGN_TARGETS])
def any_target(request: pytest.FixtureRequest, runtime_directory: str) -> str:
    """Like `target`, and over grpcio too."""
    return fresh_target(request.param, runtime_directory)


@pytest.fixture
def one_target(runtime_directory: str) -> str:
    """For what does not depend on the transport."""
    return fresh_target("shm-eventfd", runtime_directory)

"""Memory that has a name or a key: that exists for the handshake only."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from localrpc._core import sysv
from localrpc._core.links import make_bell
from localrpc.errors import ConnectError
from localrpc.options import Options
from localrpc.transports import memory
from localrpc.transports.handshake import make_hello
from localrpc.wire.greeting import hello_frame

from .helpers import PATIENCE, ROOT, AcceptingServer, dial, wait_until
from .test_greetings import connect, read_hello, send_with

RING = 131072


@pytest.fixture(params=["posix", "sysv"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def left_by(pid: int, kind: str) -> list[str]:
    """Names or keys of what that process has made; what others do at the time is not ours."""
    if kind == "posix":
        return [name for name in os.listdir("/dev/shm") if f"-{pid}-" in name]
    rows = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    # What is marked for its end is still listed while it is attached, with a key of 0.
    return [row[0] for row in rows if int(row[0]) and int(row[4]) == pid]


@pytest.fixture(autouse=True)
def _nothing_is_left(kind: str) -> Iterator[None]:
    yield
    assert not left_by(os.getpid(), kind)


def test_the_name_is_gone_once_both_sides_are_attached(kind: str) -> None:
    target = f"shm:server?memory={kind}"
    with AcceptingServer(target) as accepting:
        client = dial(target)
        assert not left_by(os.getpid(), kind)
        assert client.facts == accepting.connection().facts
        assert client.facts.memory == kind
        client.close()


def test_the_memory_is_that_of_one_user(kind: str) -> None:
    segment = memory.create(kind, RING)
    try:
        if kind == "posix":
            found = os.stat(f"/dev/shm{segment.name}")
            assert (found.st_mode & 0o777, found.st_uid) == (0o600, os.geteuid())
        else:
            rows = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
            (row,) = [row.split() for row in rows if int(row.split()[1]) == segment.handle]
            assert (row[2], row[7]) == ("600", str(os.geteuid()))
    finally:
        segment.close()


def test_a_server_that_has_not_asked_for_it_gets_none(kind: str) -> None:
    with AcceptingServer("shm:server") as accepting:
        client = dial(f"shm:server?memory={kind}")
        said = f"{kind} memory is not sealed; a server accepts it only with ?memory={kind}"
        assert client.facts.fell_back == accepting.connection().facts.fell_back == said
        assert not left_by(os.getpid(), kind)
        client.close()


def test_a_server_that_asks_for_it_takes_sealed_memory_too(kind: str) -> None:
    with AcceptingServer(f"shm:server?memory={kind}") as accepting:
        client = dial("shm:server")
        assert client.facts.memory == accepting.connection().facts.memory == "memfd"
        client.close()


def test_nothing_is_left_when_the_server_hangs_up(kind: str, runtime_directory: Path) -> None:
    runtime_directory.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(runtime_directory / "server.shm"))
        listening.listen()
        with subprocess.Popen(
            [sys.executable, "-c", DIALLER, f"shm:server?memory={kind}"]
        ) as child:
            listening.accept()[0].close()
            assert child.wait(PATIENCE) == 7
        assert not left_by(child.pid, kind)


def test_nothing_is_left_when_there_is_no_server(kind: str, runtime_directory: Path) -> None:
    runtime_directory.mkdir(mode=0o700)
    with pytest.raises(ConnectError):
        dial(f"shm:server?memory={kind}")


DIALLER = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from localrpc.errors import ConnectError
from tests.transports.helpers import dial
try:
    dial(sys.argv[1])
except ConnectError:
    sys.exit(7)
"""


@pytest.mark.parametrize("next_one", ["listener", "dialler"])
def test_a_killed_clients_memory_is_removed_by_the_next_process(
    kind: str, next_one: str, runtime_directory: Path
) -> None:
    runtime_directory.mkdir(mode=0o700)
    target = f"shm:server?memory={kind}"
    with socket.socket(socket.AF_UNIX) as stopped:
        stopped.bind(str(runtime_directory / "server.shm"))
        stopped.listen()
        with subprocess.Popen([sys.executable, "-c", DIALLER, target]) as child:
            wait_until(lambda: len(left_by(child.pid, kind)) == 2)
            memory.sweep(kind)
            assert len(left_by(child.pid, kind)) == 2  # it lives
            child.send_signal(signal.SIGKILL)
        assert len(left_by(child.pid, kind)) == 2
    if next_one == "listener":
        AcceptingServer(target).close()
    else:
        with AcceptingServer("shm:other"):
            dial(f"shm:other?memory={kind}").close()
    assert not left_by(child.pid, kind)


BAD_NAMES = [
    ("posix", ("/passwd", "/passwd"), "is not a name of a ring"),
    ("posix", ("/../tmp/x", ""), "is not a name of a ring"),
    ("posix", ("localrpc-1-2-3-0123456789abcdef",) * 2, "is not a name of a ring"),
    ("sysv", ("0x1", "0x2"), "is not a key of a ring"),
    ("sysv", ("0x6c720", "x"), "is not a key of a ring"),
    ("sysv", (), "0 names instead of 2"),
    ("posix", ("/a", "/b", "/c"), "3 names instead of 2"),
    ("", ("/a", "/b"), "1 descriptors instead of 3"),
]


@pytest.mark.parametrize(("said", "names", "words"), BAD_NAMES)
def test_names_of_anything_else_are_refused(
    said: str, names: tuple[str, ...], words: str, kind: str
) -> None:
    target = f"shm:server?memory={said or kind}"
    hello = make_hello(Options(), ring_size=RING, memory=said, memory_names=names)
    with AcceptingServer(target) as accepting:
        with connect("shm:server") as client:
            send_with(client, hello_frame(hello), [make_bell()])
            assert words in read_hello(client).refusal
        assert words in str(accepting.error())


def _offer(kind: str, size: int, mode: int) -> tuple[list[memory.Segment], str]:
    segments = [memory.create(kind, size) for _ in range(2)]
    if mode != 0o600:
        os.chmod(f"/dev/shm{segments[0].name}", mode)
    hello = make_hello(
        Options(), ring_size=RING, memory=kind, memory_names=[one.name for one in segments]
    )
    with AcceptingServer(f"shm:server?memory={kind}"), connect("shm:server") as client:
        send_with(client, hello_frame(hello), [make_bell()])
        return segments, read_hello(client).refusal


def test_memory_of_another_size_is_refused(kind: str) -> None:
    segments, refusal = _offer(kind, RING * 2, 0o600)
    assert "announced size" in refusal
    for one in segments:
        one.close()


def test_memory_that_others_may_open_is_refused() -> None:
    segments, refusal = _offer("posix", RING, 0o644)
    assert "other users have access" in refusal
    for one in segments:
        one.close()


def test_a_segment_that_is_gone_is_no_error() -> None:
    segment = memory.create("sysv", RING)
    sysv.remove(segment.handle)
    segment.close()

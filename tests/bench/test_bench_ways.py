"""Floors and bare peers, which carry bytes over one primitive each.

Invariant: an answer has the bytes of its request; a process that waits for one that has died
gets an error, and leaves nothing behind.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import pytest

from localrpc.bench.bare import BARE
from localrpc.bench.floors import FLOORS, LocalFloor
from localrpc.bench.halves import Worker
from localrpc.bench.peer import Client, Dress, Peer, UnsupportedScenario
from localrpc.bench.peers import find_peer
from localrpc.bench.sample import Slice
from localrpc.bench.scenarios import SIZES, Raw
from tests.bench.running import CORES, folder_for_halves, running
from tests.rpc.house import await_that

FLOOR_NAMES = [floor.name for floor in FLOORS if not isinstance(floor, LocalFloor)]
BARE_NAMES = [peer.name for peer in BARE] + ["ring"]
SYSV = ["sysv-queues", "floor-sysvmq"]
# Where a length and its message fill what is read, or sent, at once; and one byte less or more.
EDGES = [n * 8192 + by for n in (1, 2, 8) for by in (-5, -4, -3, -1, 0, 1)]


class Served(NamedTuple):
    name: str
    directory: Path
    pid: int
    client: Client


@pytest.fixture(scope="module", params=[*FLOOR_NAMES, *BARE_NAMES])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A server for all tests that leave it alive."""
    directory = folder_for_halves(tmp_path_factory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALRPC_RUNTIME_DIR", str(directory))
        with running(request.param, directory) as (pid, client):
            yield Served(request.param, directory, pid, client)


def test_every_size_comes_back_as_it_was_sent(served: Served) -> None:
    # Again after the largest, which may leave a way larger, full of gaps, or elsewhere.
    for size in [*EDGES, *SIZES, *SIZES[:-2]]:
        # Compares them, and raises.
        served.client.raw(size)


@pytest.mark.parametrize("served", FLOOR_NAMES, indirect=True)
def test_floors_know_bytes_alone(served: Served) -> None:
    with pytest.raises(UnsupportedScenario):
        served.client.unary(64, Dress.PLAIN)


@pytest.mark.parametrize("name", [*FLOOR_NAMES, *BARE_NAMES])
def test_a_server_that_dies_is_an_error_and_not_waited_for(directory: Path, name: str) -> None:
    with (
        running(name, directory) as (pid, client),
        closing(find_peer(name).connect(directory)) as other,
    ):
        calls = [client.raw(64), other.raw(1 << 20)]
        os.kill(pid, signal.SIGKILL)
        for call in calls:
            with pytest.raises((EOFError, OSError)):
                client.driver.repeat(call, 20)


def test_a_client_that_dies_leaves_the_others_alone(served: Served) -> None:
    call = served.client.raw(1 << 20)
    with closing(ready("client", find_peer(served.name), served.directory)) as other:
        other.ask((Raw("raw", "raw", 1 << 20), Slice(0, 0.01, served.pid)), 20)
        os.kill(other.pid, signal.SIGKILL)
    served.client.driver.once(call)


def ready(role: str, peer: Peer, directory: Path) -> Worker:
    worker = Worker(role, peer, directory, CORES)
    assert worker.answer(20) is None
    return worker


def queues_of(*pids: int) -> int:
    """System V queues that one of them was the last to use."""
    rows = Path("/proc/sysvipc/msg").read_text().splitlines()[1:]
    return sum(not {int(one) for one in row.split()[5:7]}.isdisjoint(pids) for row in rows)


@pytest.mark.parametrize("name", SYSV)
@pytest.mark.parametrize("who", ["client", "server"])
def test_queues_are_removed_when_either_side_is_killed(
    directory: Path, name: str, who: str
) -> None:
    peer = find_peer(name)
    with ExitStack() as stack:
        server, client = (
            stack.enter_context(closing(ready(role, peer, directory)))
            for role in ("server", "client")
        )
        client.ask((Raw("raw", "raw", 64), Slice(0, 0.01, server.pid)), 20)
        pids = server.pid, client.pid
        assert queues_of(*pids) == 2
        os.kill(client.pid if who == "client" else server.pid, signal.SIGKILL)
        await_that(lambda: not queues_of(*pids), "the queues are gone")

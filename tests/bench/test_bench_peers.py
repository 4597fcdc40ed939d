"""Every peer in every scenario that it has, in slices too short to measure anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from localrpc.bench.bare import BARE
from localrpc.bench.floors import FLOORS, LocalFloor
from localrpc.bench.machine import why_no_syscalls
from localrpc.bench.peer import Client, Peer
from localrpc.bench.peers import default_peers, find_peer
from localrpc.bench.plan import Plan
from localrpc.bench.results import Results
from localrpc.bench.runner import Runner
from localrpc.bench.scenarios import (
    KNOWN,
    MIB,
    Beside,
    Scenario,
    clients_of,
    threads_of,
    unary_of,
)
from tests.conftest import FULL
from tests.skips import cannot, needs

RPC = ["shm", "shm-aio", "grpcio-tcp", "grpcio-aio"]
if FULL:  # with grpcio, the other kind of socket is nothing but another address
    RPC += ["grpcio", "grpcio-tcp-aio"]
BYTES = [*(peer.name for peer in BARE), "ring", "multiprocessing"]
FOREIGN = ["pyzmq", "pynng", "rpyc", "pycapnp", "iceoryx2"]
LOCAL = [floor.name for floor in FLOORS if isinstance(floor, LocalFloor)]
PLAIN = [KNOWN[name] for name in ("unary", "raw", "idle", "connect")]


def run(peers: list[str], scenarios: list[Scenario]) -> Results:
    plan = Plan(tuple(peers), tuple(scenarios), rounds=1, seconds=0.01)
    return Runner(plan, lambda progress: None).run()


def measured(results: Results, peer: str) -> set[str]:
    return {
        name for name, rounds in results.rounds.items() if any(peer in r.samples for r in rounds)
    }


@pytest.mark.parametrize(
    "peers",
    [
        pytest.param(RPC, id="rpc"),
        pytest.param(BYTES, id="bytes"),
        *(pytest.param([name], id=name, marks=needs(name)) for name in FOREIGN),
    ],
)
def test_a_peer_has_samples_of_all_that_it_can_do(peers: list[str]) -> None:
    scenarios = [*PLAIN, unary_of(65536), threads_of(2), clients_of(2)]
    if peers is RPC:
        scenarios += [KNOWN[name] for name in ("chat", "download", "upload")]
        scenarios.append(Beside("beside", "beside another client's 1 MiB", 64, MIB))
    results = run(peers, scenarios)
    assert results.failures == {}
    for peer in peers:
        assert measured(results, peer) == {scenario.name for scenario in scenarios}


def test_a_start_is_a_program_of_its_own() -> None:
    results = run(["shm", "grpcio"], [KNOWN["start"]])
    assert results.failures == {}
    for peer in ("shm", "grpcio"):
        sample = results.rounds["start"][0].samples[peer]
        # No Python starts with less: the program's processor time is counted.
        assert sample.client_cpu > 0.002 * sample.calls


def test_floors_know_bytes_alone_and_protobuf_messages_alone() -> None:
    # test_bench_ways.py asks each of those between processes.
    peers = [*LOCAL, "floor-ring"]
    results = run(peers, [KNOWN["raw"], KNOWN["unary"]])
    assert results.failures == {}
    for peer in peers:
        only = "unary" if peer == "floor-protobuf" else "raw"
        assert measured(results, peer) == {only}


def test_an_unsupported_scenario_is_not_a_failure() -> None:
    results = run(["socket"], [KNOWN["unary-full"], KNOWN["download"]])
    assert results.unsupported == {("socket", "unary-full"), ("socket", "download")}
    assert results.failures == {}


def test_a_sample_has_the_resources_of_both_sides() -> None:
    results = run(["shm"], [KNOWN["unary"]])
    sample = results.rounds["unary"][0].samples["shm"]
    assert sample.memory is not None
    assert sample.memory > 2 * 1024 * 1024
    assert sample.switches_per_call is not None
    assert sample.bytes_per_second == pytest.approx(64 * sample.rate)


@needs("perf")
def test_system_calls_are_counted_in_slices_of_their_own() -> None:
    if why := why_no_syscalls():
        cannot(why)
    plan = Plan(("socket", "floor-copy"), (KNOWN["raw"],), 2, 0.05, syscalls=True)
    results = Runner(plan, lambda progress: None).run()
    # A send and a receive on either side, and what a handing over of the GIL takes.
    assert {peer: len(counts) for (peer, _), counts in results.syscalls.items()} == {
        "socket": 2,
        "floor-copy": 2,
    }
    assert all(4 <= count < 20 for count in results.syscalls["socket", "raw"])
    assert all(count < 0.5 for count in results.syscalls["floor-copy", "raw"])


class Absent(Peer):
    name = "absent"
    module = "no_such_module_of_anybody"
    package = "no-such-package"

    @contextmanager
    def serve(self, directory: Path) -> Iterator[None]:
        raise NotImplementedError

    def connect(self, directory: Path) -> Client:
        raise NotImplementedError


def test_a_peer_that_is_not_installed_is_a_failure_with_the_pip_command() -> None:
    plan = Plan(("absent",), (KNOWN["unary"],), 1, 0.01, services={"absent": Absent()})
    results = Runner(plan, lambda progress: None).run()
    assert results.failures == {("absent", None): "not installed: pip install no-such-package"}


def test_the_default_peers_need_nothing_but_localrpc() -> None:
    peers = [find_peer(name) for name in default_peers()]
    assert {"shm", "grpcio", "socket", "multiprocessing"} <= {peer.name for peer in peers}
    assert not any(peer.module for peer in peers)

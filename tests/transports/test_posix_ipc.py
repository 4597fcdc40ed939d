"""What works without posix_ipc, and which errors the rest gives."""

from __future__ import annotations

import subprocess
import sys
from concurrent import futures
from typing import Any

import grpc
import pytest

import localrpc
from localrpc.bench.bare import BARE
from localrpc.bench.floors import FLOORS

FIX = "pip install 'localrpc[mq]'"


def double(request: bytes, context: grpc.ServicerContext) -> bytes:
    return request * 2


def server_at(target: str) -> grpc.Server:
    handler: Any = grpc.unary_unary_rpc_method_handler(double)
    handlers = grpc.method_handlers_generic_handler("t", {"twice": handler})
    server = localrpc.server(futures.ThreadPoolExecutor(1), handlers=[handlers])
    server.add_insecure_port(target)
    return server


def twice(channel: grpc.Channel) -> Any:
    call: Any = channel.unary_unary("/t/twice")
    return call(b"x", timeout=20)


@pytest.fixture
def without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "posix_ipc", None)


def test_a_program_that_uses_other_targets_never_imports_it(runtime_directory: str) -> None:
    program = """
import sys
sys.modules["posix_ipc"] = None
import localrpc
from tests.transports.test_posix_ipc import server_at, twice
server = server_at("shm:present")
server.start()
with localrpc.insecure_channel("shm:present") as channel:
    assert twice(channel) == b"xx"
    assert channel.facts.memory == "memfd"
server.stop(None)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.usefixtures("without_it", "runtime_directory")
@pytest.mark.parametrize("target", ["mq:absent", "shm:absent?memory=posix"])
def test_a_server_that_needs_it_says_how_to_install_it(target: str) -> None:
    with pytest.raises(RuntimeError, match="posix_ipc") as caught:
        server_at(target)
    assert FIX in str(caught.value)


@pytest.mark.usefixtures("runtime_directory")
def test_a_call_that_needs_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    server = server_at("mq:present")
    server.start()
    monkeypatch.setitem(sys.modules, "posix_ipc", None)
    with localrpc.insecure_channel("mq:present") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            twice(channel)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert FIX in str(caught.value.details())
    monkeypatch.undo()
    server.stop(None)


@pytest.mark.usefixtures("runtime_directory")
def test_a_channel_that_asks_for_its_memory_stays_on_the_socket_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = server_at("shm:present?memory=posix")
    server.start()
    monkeypatch.setitem(sys.modules, "posix_ipc", None)
    with localrpc.insecure_channel("shm:present?memory=posix") as channel:
        assert twice(channel) == b"xx"
        assert channel.facts is not None
        assert FIX in str(channel.facts.fell_back)
    monkeypatch.undo()
    server.stop(None)


@pytest.mark.usefixtures("without_it")
def test_transports_say_how_to_install_it() -> None:
    missing = {offer.target: offer.missing for offer in localrpc.transports()}
    assert FIX in missing.pop("mq:NAME")
    assert not [text for text in missing.values() if "posix_ipc" in text]


def test_the_benchmark_leaves_out_what_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import localrpc.bench.peer as peers

    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    peers_of_queues = [peer for peer in (*BARE, *FLOORS) if peer.module == "posix_ipc"]
    assert {peer.name for peer in peers_of_queues} == {"queues", "floor-mq"}
    assert all(FIX in str(peer.missing) for peer in peers_of_queues)

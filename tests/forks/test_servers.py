"""A server over a fork: it stays the parent's, and its name dies with the parent."""

from __future__ import annotations

import os
import signal
import subprocess
from concurrent import futures
from typing import Any

import grpc
import pytest

import localrpc
from localrpc.errors import AddressInUse
from tests.forks.children import Child, try_all_kinds
from tests.peers import processes
from tests.peers.journal import PATIENCE, Journal, Pen, PipeJournal
from tests.peers.processes import Peer
from tests.peers.scenes import Stage
from tests.peers.station import Station
from tests.places import another_name

Code = grpc.StatusCode


def test_an_inherited_server_has_no_effect_in_a_child(station: Station, stage: Stage) -> None:
    try_all_kinds(stage.channel)

    def work() -> None:
        assert station.server.stop(None).wait(PATIENCE)
        assert station.server.stop(5).wait(PATIENCE)
        del station.server

    Child(work).join()
    try_all_kinds(stage.channel)


def test_a_child_cannot_take_its_parents_name(target: str, station: Station, stage: Stage) -> None:
    def work() -> None:
        server = localrpc.server(futures.ThreadPoolExecutor(2))
        with pytest.raises(AddressInUse):
            server.add_insecure_port(target)

    Child(work).join()
    try_all_kinds(stage.channel)


def test_a_child_may_serve_under_a_name_of_its_own(
    target: str, station: Station, stage: Stage
) -> None:
    journal = PipeJournal()
    own = another_name(target)

    def work() -> None:
        mine = Station(own, journal.pen)
        journal.pen.say("serving")
        with Stage(own) as within:
            try_all_kinds(within.channel)
        try_all_kinds(stage.channel)
        mine.server.wait_for_termination(PATIENCE)

    child = Child(work)
    journal.hear("serving")
    with Stage(own) as visitor:
        try_all_kinds(visitor.channel)
    try_all_kinds(stage.channel)
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(AssertionError):
        child.join()
    journal.close()


def serve_and_fork(target: str, pen: Pen) -> None:
    station = Station(target, pen)
    with Stage(target) as stage:
        try_all_kinds(stage.channel)
        pid = os.fork()
        if pid == 0:
            signal.pause()
        pen.say("serving", pid)
        station.server.wait_for_termination(PATIENCE)


def test_a_servers_child_does_not_keep_its_name_or_its_calls_alive(target: str) -> None:
    with Peer(serve_and_fork, target) as server:
        _, pid = server.hear("serving")
        stage = Stage(target)
        try:
            hold = stage.channel.unary_unary("/station/hold")
            with futures.ThreadPoolExecutor(1) as pool:
                held = pool.submit(hold, b"")
                server.hear("entered", "hold")
                server.kill()
                error: Any = held.exception(PATIENCE)
            assert error.code() is Code.UNAVAILABLE
            with pytest.raises(grpc.RpcError) as caught:
                hold(b"")
            error = caught.value
            assert error.code() is Code.UNAVAILABLE
            with processes.server(target):
                try_all_kinds(stage.channel)
        finally:
            stage.close()
            os.kill(pid, signal.SIGKILL)


def call_and_fork(target: str, pen: Pen) -> None:
    with Stage(target) as stage:
        call = stage.channel.unary_stream("/station/trickle")(b"")
        assert next(call) == b"first"
        pid = os.fork()
        if pid == 0:
            signal.pause()
        pen.say("begun", pid)
        next(call)


def test_a_clients_child_does_not_keep_its_calls_alive(
    target: str, station: Station, journal: Journal
) -> None:
    with Peer(call_and_fork, target) as client:
        _, pid = client.hear("begun")
        try:
            client.kill()
            assert journal.hear("over", "trickle") == ("over", "trickle", False)
            journal.hear("left", "trickle")
        finally:
            os.kill(pid, signal.SIGKILL)


def test_forking_while_handlers_run(station: Station, stage: Stage, journal: Journal) -> None:
    held = [stage.channel.unary_unary("/station/hold").future(b"") for _ in range(3)]
    for _ in held:
        journal.hear("entered", "hold")
    for _ in range(5):
        Child(lambda: try_all_kinds(stage.channel)).join()
    assert all(call.running() for call in held)
    for call in held:
        call.cancel()
        journal.hear("over", "hold")


SHOW = "ls -l /proc/self/fd; grep SigBlk /proc/self/status"


def test_a_program_that_a_handler_runs_inherits_nothing(target: str) -> None:
    def run(request: bytes, context: grpc.ServicerContext) -> bytes:
        return subprocess.run(["sh", "-c", SHOW], capture_output=True, check=True).stdout

    handler: Any = grpc.unary_unary_rpc_method_handler(run)
    handlers = grpc.method_handlers_generic_handler("s", {"run": handler})
    server = localrpc.server(futures.ThreadPoolExecutor(2), (handlers,))
    server.add_insecure_port(target)
    server.start()
    with localrpc.insecure_channel(target) as channel:
        call: Any = channel.unary_unary("/s/run")
        shown = call(b"", timeout=PATIENCE).decode()
    server.stop(None)
    links = [line.split(" -> ")[1] for line in shown.splitlines() if " -> " in line]
    assert not [link for link in links if link.startswith(("anon_inode", "socket", "/memfd"))]
    assert "SigBlk:\t0000000000000000" in shown

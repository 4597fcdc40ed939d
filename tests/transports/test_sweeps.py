"""What killed servers and clients leave of FIFOs and queues, and which process removes it."""

from __future__ import annotations

import signal
from concurrent import futures
from pathlib import Path

import pytest

from localrpc._core import lib
from localrpc.errors import AddressInUse, ConnectError
from localrpc.options import Options
from localrpc.transports import parse_target, transport_for
from tests.links.kinds import End, Frame
from tests.peers import census

from . import request_places
from .helpers import (
    DIAL,
    SERVE_ONE,
    AcceptingServer,
    dial,
    listening,
    readable,
    run_python,
    serving,
    wait_until,
)
from .request_places import goes_on

target = request_places.target


DIE = """
import os, signal, sys
from localrpc.transports import parse_target
from localrpc.options import Options
from localrpc.transports import Attempt, mq, pipe, records, sysv, transport_for
from localrpc.transports import connect_requests, queues

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def patch(where):
    if where == "record made":  # nothing else yet
        make = records.make
        def made(*args):
            make(*args)
            die()
        records.make = made
    elif where == "half made":
        os.mkfifo, mkfifo = (lambda path, mode: (mkfifo(path, mode), die())), os.mkfifo
        queue = mq._Queue
        def one(name, **how):
            made = queue(name, **how)
            if how:
                die()
            return made
        mq._Queue = one
        make = sysv.make
        sysv.make = lambda key: (make(key), die())
    elif where == "before the request":
        pipe.send_connect_request = queues.send_connect_request = die
    elif where == "after the request":
        send = connect_requests.send_connect_request
        def send_and_die(*args, **how):
            send(*args, **how)
            die()
        pipe.send_connect_request = queues.send_connect_request = send_and_die

address = parse_target(sys.argv[1])
patch(sys.argv[2])
transport_for(address.scheme).dialer(address, Options()).dial(Attempt())
"""
STEPS = ["record made", "half made", "before the request", "after the request"]


@pytest.mark.parametrize("where", STEPS)
def test_what_a_killed_client_leaves_is_swept_by_the_next_start(
    target: str, where: str, tmp_path: Path
) -> None:
    with listening(target) as holder:
        with run_python(DIE, target, where) as client:
            client.communicate()
            assert client.returncode == -signal.SIGKILL
        assert len(request_places.entries(target, tmp_path)) > 1
        holder.kill()
    AcceptingServer(target).close()
    assert request_places.entries(target, tmp_path) == set()


@pytest.mark.parametrize("where", STEPS)
def test_a_server_clears_up_after_killed_clients_when_the_next_one_comes(
    target: str, where: str, tmp_path: Path
) -> None:
    with serving(target):
        before = request_places.entries(target, tmp_path)
        with run_python(DIE, target, where) as client:
            client.communicate()
            assert client.returncode == -signal.SIGKILL
        dial(target).close()
        wait_until(lambda: request_places.entries(target, tmp_path) == before)
    assert request_places.entries(target, tmp_path) == set()


@pytest.mark.parametrize("where", STEPS)
def test_a_server_that_stops_clears_up_after_killed_clients(
    target: str, where: str, tmp_path: Path
) -> None:
    listener = transport_for(parse_target(target).scheme).listen(parse_target(target), Options())
    with run_python(DIE, target, where) as client:
        client.communicate()
        assert client.returncode == -signal.SIGKILL
    listener.close()
    assert request_places.entries(target, tmp_path) == set()


def test_a_cleanup_spares_connecting_clients(target: str) -> None:
    address = parse_target(target)
    listener = transport_for(address.scheme).listen(address, Options())
    with futures.ThreadPoolExecutor(1) as pool:
        dialled = pool.submit(dial, target)
        assert readable(listener.fileno())
        assert listener.tidy()
        (greeting,) = listener.accept()
        while (connection := greeting.advance()) is None:
            assert readable(greeting.fileno())
        dialled.result(20).close()
    connection.close()
    assert not listener.tidy()
    listener.close()


def test_a_client_killed_before_its_hello_does_no_harm(target: str, tmp_path: Path) -> None:
    with AcceptingServer(target, ("localrpc.greeting_timeout_ms", 50)) as accepting:
        outcome_of = run_python(DIE, target, "after the request")
        with outcome_of as client:
            client.communicate()
        # A System V queue's client sends its HELLO before the request.
        accepting.wait_for(lambda: bool(accepting.errors or accepting.connections))
        goes_on(accepting, target)
    AcceptingServer(target).close()
    assert request_places.entries(target, tmp_path) == set()


DIE_CLOSING = """
import os, signal, sys
from localrpc.transports import parse_target
from localrpc.options import Options
from localrpc.transports import records, sysv, transport_for

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

address = parse_target(sys.argv[1])
listener = transport_for(address.scheme).listen(address, Options())
steps = iter(range(int(sys.argv[2])))
for owner, name in ((os, "unlink"), (os, "rename"), (sysv, "drop"), (records.Record, "remove")):
    def step(*args, call=getattr(owner, name)):
        if next(steps, None) is None:
            die()
        return call(*args)
    setattr(owner, name, step)
listener.close()
"""


@pytest.mark.parametrize("steps", range(4))
def test_a_server_that_is_killed_while_it_closes_leaves_nothing_to_the_next_but_one(
    target: str, steps: int, tmp_path: Path
) -> None:
    before = census.take().sysv_queues
    with run_python(DIE_CLOSING, target, str(steps)) as server:
        server.communicate()
        assert server.returncode in (0, -signal.SIGKILL)
    AcceptingServer(target).close()
    assert request_places.entries(target, tmp_path) == set()
    assert census.take().sysv_queues == before


def test_what_a_client_has_left_to_its_server_to_read_goes_with_the_next(
    target: str, tmp_path: Path
) -> None:
    before = census.take().sysv_queues
    with listening(target, SERVE_ONE) as server:
        client = End(dial(target))
        assert server.line().startswith("connected")
        assert client.try_send(Frame(lib.LR_T_MESSAGE, 1, 0, b"never read")) == 1
        client.close()
        server.kill()
    AcceptingServer(target).close()
    assert request_places.entries(target, tmp_path) == set()
    assert census.take().sysv_queues == before


def test_killed_servers_and_clients_leave_nothing_for_long(target: str, tmp_path: Path) -> None:
    with listening(target, SERVE_ONE) as server, run_python(DIAL, target) as client:
        assert server.line().startswith(f"connected {client.pid} ")
        server.kill()
        client.kill()
    AcceptingServer(target).close()
    assert request_places.entries(target, tmp_path) == set()


def test_a_sweep_leaves_the_living_alone(target: str) -> None:
    with listening(target) as holder, futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(dial, target, ("localrpc.connect_timeout_ms", 60_000))
        with pytest.raises(AddressInUse):
            AcceptingServer(target)
        holder.kill()
        assert isinstance(waiting.exception(20), ConnectError)
    AcceptingServer(target).close()

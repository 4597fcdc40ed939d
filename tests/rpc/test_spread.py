"""A channel to a group of workers: here servers of one process, each with a number.

tests/workers has real ones.
"""

from __future__ import annotations

import gc
import mmap
import os
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

import localrpc
from localrpc.drive.core import lib
from localrpc.sync import unary
from tests.conftest import fresh_target
from tests.rpc.groups import KINDS, PATIENCE, Group, Worker, eventually


class Client:
    def __init__(self, target: str, **options: str) -> None:
        pairs = [(f"localrpc.{key}", value) for key, value in options.items()]
        self.channel: Any = localrpc.insecure_channel(target, pairs)
        self.name: Any = self.channel.unary_unary("/s/name")
        self.hold: Any = self.channel.unary_unary("/s/hold")
        self.stream: Any = self.channel.unary_stream("/s/stream")

    def reach(self, first: Worker, other: Worker) -> Any:
        """Be connected to both; return a call that keeps the first one busy."""
        busy = self.hold.future(b"")
        assert first.holding.acquire(timeout=PATIENCE)
        eventually(lambda: self.name(b"") == other.name, "it connects to the other worker")
        return busy


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, runtime_directory: str) -> str:
    return fresh_target(request.param, runtime_directory)


@pytest.fixture
def pair(target: str) -> Iterator[Group]:
    group = Group(target, 2)
    yield group
    group.stop()


def test_calls_one_after_another_need_one_connection(pair: Group) -> None:
    client = Client(pair.target)
    assert {client.name(b"") for _ in range(50)} == {b"1"}
    assert client.name.future(b"").result() == b"1"
    assert client.name.with_call(b"", metadata=(("a", "b"),))[0] == b"1"
    assert list(client.stream(b"").__next__() for _ in range(1)) == [b"1"]
    assert (pair[1].clients, pair[2].clients) == (1, 0)
    client.channel.close()


def test_a_busy_worker_gets_no_call_that_another_can_take(pair: Group) -> None:
    client = Client(pair.target)
    busy = client.reach(pair[1], pair[2])
    for _ in range(20):
        assert client.name(b"") == b"2"
        assert client.name.future(b"").result() == b"2"
        assert client.name(b"", metadata=(("a", "b"),)) == b"2"
        assert client.name.with_call(b"")[0] == b"2"
    pair[1].release.set()
    assert busy.result() == b"1"
    held = client.hold.future(b"")  # by the first that is idle
    assert held.result() == b"1"
    client.channel.close()


def test_a_worker_that_another_client_keeps_busy_gets_no_call(pair: Group) -> None:
    client, other = Client(pair.target), Client(pair.target)
    assert client.name(b"") == other.name(b"") == b"1"
    busy = other.hold.future(b"")
    assert pair[1].holding.acquire(timeout=PATIENCE)
    eventually(lambda: client.name(b"") == b"2", "the second is found")
    for _ in range(20):
        assert client.name(b"") == b"2"
        assert client.name.future(b"").result() == b"2"
    pair[1].release.set()
    assert busy.result() == b"1"
    client.channel.close()
    other.channel.close()


def test_streams_of_another_client_count(pair: Group) -> None:
    client, other = Client(pair.target), Client(pair.target)
    busy = client.reach(pair[1], pair[2])
    pair[1].release.set()
    assert busy.result() == b"1"
    theirs = other.stream(b"")
    assert next(theirs) == b"1"
    shown = client.channel._connector._links.sessions[0].load
    eventually(lambda: shown.all_streams() == 1, "it is shown")
    ours = client.stream(b"")
    assert next(ours) == b"2"
    client.channel.close()
    other.channel.close()


def test_what_a_worker_shows_is_nothing_again_however_its_calls_end(target: str) -> None:
    group = Group(target, 1)  # so that no stream goes to another
    client, gone = Client(target), Client(target)
    assert client.name(b"") == b"1"
    shown = client.channel._connector.peek().connection.load
    with pytest.raises(grpc.RpcError):
        client.hold(b"", timeout=0.01)
    cancelled = client.hold.future(b"")
    streams = [client.stream(b"") for _ in range(2)]
    streams += [gone.stream(b"") for _ in range(2)]
    assert [next(stream) for stream in streams] == [b"1"] * 4
    eventually(lambda: shown[1] == 4, "the streams are shown")
    cancelled.cancel()
    streams[0].cancel()
    gone.channel.close()
    group[1].release.set()
    streams[1].cancel()
    eventually(lambda: list(shown[:2]) == [0, 0], "all have ended")
    assert client.name(b"") == b"1"
    assert shown[0] == 0  # before the answer
    client.channel.close()
    group.stop()


@pytest.mark.parametrize("target", ["shm-eventfd"], indirect=True)
def test_calls_that_wait_for_long_do_not_keep_others_from_a_worker(pair: Group) -> None:
    waiting = [Client(address, spread="off") for address in pair.places()]
    held = [client.hold.future(b"") for client in waiting]
    for number in (1, 2):
        assert pair[number].holding.acquire(timeout=PATIENCE)
    client = Client(pair.target)
    assert client.name(b"") == b"1"
    eventually(lambda: client.name(b"") == b"2", "a worker that has only answered no call yet")
    shown = client.channel._connector._links.sessions[1].load.shown
    assert (shown[0], shown[3]) == (1, 0), "no call has come since it answered one"
    more = waiting[1].hold.future(b"")
    assert pair[2].holding.acquire(timeout=PATIENCE)
    assert shown[0] == 2
    assert shown[3] > 0
    for number in (1, 2):
        pair[number].release.set()
    assert [call.result() for call in (*held, more)] == [b"1", b"2", b"2"]
    for each in (client, *waiting):
        each.channel.close()


def test_a_client_cannot_write_what_a_worker_shows(target: str) -> None:
    group = Group(target, 1)
    descriptor = int(lib.lr_load_page(group[1].server._serving.engine))
    with pytest.raises(PermissionError):
        mmap.mmap(descriptor, 32)
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 0)
    group.stop()


def test_threads_share_all_workers(pair: Group) -> None:
    client = Client(pair.target)
    busy = client.reach(pair[1], pair[2])
    with ThreadPoolExecutor(8) as pool:
        names = Counter(pool.map(client.name, [b""] * 400))
    assert set(names) <= {b"1", b"2"}
    assert names.total() == 400
    pair[1].release.set()
    assert busy.result() == b"1"
    client.channel.close()


def test_streams_go_where_fewest_are(pair: Group) -> None:
    client = Client(pair.target)
    busy = client.reach(pair[1], pair[2])
    streams = [client.stream(b"") for _ in range(6)]
    names = [next(stream) for stream in streams]
    assert Counter(names) == {b"1": 3, b"2": 3}
    for stream, name in zip(streams, names, strict=True):
        if name == b"2":
            stream.cancel()
    second = client.channel._connector._links.sessions[1].load
    eventually(lambda: second.all_streams() == 0, "the worker has noticed")
    more = [client.stream(b"") for _ in range(3)]
    assert [next(stream) for stream in more] == [b"2"] * 3
    pair[1].release.set()
    assert busy.result() == b"1"
    client.channel.close()


def test_a_worker_that_stops_costs_no_call(pair: Group) -> None:
    client = Client(pair.target)
    states: list[grpc.ChannelConnectivity] = []
    client.channel.subscribe(states.append)
    busy = client.reach(pair[1], pair[2])
    stopping = pair[1].server.stop(PATIENCE)
    for _ in range(20):
        assert client.name(b"") == b"2"
        assert next(client.stream(b"")) == b"2"
    pair[1].release.set()
    assert busy.result() == b"1"
    stopping.wait()
    eventually(lambda: client.name(b"") == b"2", "the other serves on")
    assert states[-1] is grpc.ChannelConnectivity.READY
    pair[2].stop()
    with pytest.raises(grpc.RpcError) as failed:
        client.name(b"")
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    eventually(lambda: grpc.ChannelConnectivity.READY is not states[-1], "none is left")
    client.channel.close()


def test_a_worker_that_comes_later_is_found(target: str) -> None:
    group = Group(target, 1)
    client = Client(target)
    busy = client.hold.future(b"")
    assert group[1].holding.acquire(timeout=PATIENCE)
    assert client.name(b"") == b"1"  # and no other is found
    group.workers[2] = Worker(target, 2)
    eventually(lambda: client.name(b"") == b"2", "the second gets calls")
    group[1].release.set()
    assert busy.result() == b"1"
    client.channel.close()
    group.stop()


def test_numbers_may_be_missing(target: str) -> None:
    group = Group(target, 1)
    group.workers[3] = Worker(target, 3)
    client = Client(target)
    busy = client.reach(group[1], group[3])
    assert client.name(b"") == b"3"
    busy.cancel()
    client.channel.close()
    group.stop()


def test_a_server_of_another_group_gets_no_calls(target: str) -> None:
    group = Group(target, 1)
    group.workers[2] = Worker(target, 2, group="other")
    group.workers[3] = Worker(target, 3)
    client = Client(target)
    busy = client.reach(group[1], group[3])
    assert {client.name(b"") for _ in range(50)} == {b"3"}
    eventually(lambda: not group[2].clients, "its connection is closed")
    busy.cancel()
    client.channel.close()
    group.stop()


def test_a_channel_may_stay_with_one_worker(pair: Group) -> None:
    client = Client(pair.target, spread="off")
    busy = client.hold.future(b"")
    assert pair[1].holding.acquire(timeout=PATIENCE)
    assert {client.name(b"") for _ in range(50)} == {b"1"}
    assert pair[2].clients == 0
    pair[1].release.set()
    assert busy.result() == b"1"
    client.channel.close()


@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_channel_leaves_no_connection(pair: Group, how: str) -> None:
    client = Client(pair.target)
    busy = client.reach(pair[1], pair[2])
    pair[1].release.set()
    assert busy.result() == b"1"
    sessions = [weakref.ref(each) for each in client.channel._connector._links.sessions]
    assert len(sessions) == 2
    gc.disable()
    try:
        if how == "close":
            client.channel.close()
        del client, busy
        eventually(lambda: not (pair[1].clients or pair[2].clients), "both have ended")
        eventually(lambda: not any(ref() for ref in sessions), "nothing keeps them")
    finally:
        gc.enable()


def test_a_forked_child_makes_connections_of_its_own(pair: Group) -> None:
    client = Client(pair.target)
    busy = client.reach(pair[1], pair[2])
    pid = os.fork()
    if pid == 0:
        # The worker that is busy has the group's place.
        os._exit(0 if client.name(b"", timeout=PATIENCE) == b"1" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert client.name(b"") == b"2"
    pair[1].release.set()
    assert busy.result() == b"1"
    client.channel.close()


@pytest.mark.parametrize("how", ["plain", "with metadata", "future", "stream"])
def test_workers_that_ended_unnoticed_cost_no_call(runtime_directory: str, how: str) -> None:
    """More than a call has attempts otherwise: nothing reads the connections meanwhile."""
    group = Group(fresh_target("unix", runtime_directory), 12)
    client = Client(group.target)
    calls: dict[int, Any] = {}
    while len(calls) < 12:
        number = int(client.name(b""))
        if number not in calls:
            calls[number] = client.hold.future(b"")
            assert group[number].holding.acquire(timeout=PATIENCE)
    for number, call in calls.items():
        group[number].release.set()
        assert call.result() == b"%d" % number
    for number in range(1, 12):
        group[number].stop()
    if how == "plain":
        answer = client.name(b"")
    elif how == "with metadata":
        answer = client.name(b"", metadata=(("a", "b"),))
    elif how == "future":
        answer = client.name.future(b"").result()
    else:
        answer = next(client.stream(b""))
    assert answer == b"12"
    client.channel.close()
    group.stop()


def test_a_finalizer_may_close_the_channel_while_its_links_change(pair: Group) -> None:
    client = Client(pair.target)
    busy = client.reach(pair[1], pair[2])
    links = client.channel._connector._links
    first = links.sessions[0]
    done = threading.Event()

    def close_inside() -> None:
        with links._lock:
            client.channel.close()
            assert not links.add(first)
        done.set()

    threading.Thread(target=close_inside, daemon=True).start()
    assert done.wait(PATIENCE)
    assert links.sessions == ()
    pair[1].release.set()
    del busy


@pytest.mark.parametrize("metadata", [None, (("a", "b"),)])
def test_an_interrupted_call_counts_no_longer(
    pair: Group, monkeypatch: pytest.MonkeyPatch, metadata: Any
) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    client = Client(pair.target)
    assert client.name(b"") == b"1"
    with monkeypatch.context() as patched:
        patched.setattr(unary, "_lr_unary", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.name(b"", metadata=metadata)
    assert client.channel._connector.peek().load.calls == []
    client.channel.close()


def test_a_forked_child_closes_what_a_search_of_the_parent_uses(pair: Group) -> None:
    client = Client(pair.target)
    assert client.name(b"") == b"1"
    fd = client.channel._connector._links._wake = os.eventfd(0)
    pid = os.fork()
    if pid == 0:
        try:
            os.fstat(fd)
        except OSError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    client.channel._connector._links._wake = None
    os.close(fd)
    client.channel.close()

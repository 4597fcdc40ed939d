"""More clients at once than a server's leader looks at: each has its turn, and none waits forever.

The leader keeps the connections that were active recently in a list of 64 (polled.c), so what is
to be seen begins with the 65th.
"""

from __future__ import annotations

import resource
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import localrpc
from localrpc._core import Io, ffi, lib
from localrpc.transports import parse_target
from tests.links.kinds import KINDS, End, Frame, Kind, pair
from tests.peers import processes
from tests.peers.journal import PATIENCE, Pen
from tests.places import most_clients
from tests.skips import cannot

POLLED = 64
PROCESSES = 4
EACH = 20
"""Calls that the slowest client makes before the others stop."""


def most_descriptors() -> None:
    """As many as this process may have: 500 connections of shm: need some thousands."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Busy(threading.Thread):
    """A client that calls without a pause until all have made EACH calls."""

    def __init__(self, target: str, over: threading.Event) -> None:
        super().__init__()
        self.channel = localrpc.insecure_channel(target)
        self.over = over
        self.enough = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        echo: Any = self.channel.unary_unary("/station/echo")
        calls = 0
        try:
            while not self.over.is_set():
                assert echo(b"x" * 64, timeout=PATIENCE) == b"x" * 64
                calls += 1
                if calls == EACH:
                    self.enough.set()
        except BaseException as error:
            self.failure = error
        self.enough.set()
        self.channel.close()


def keep_busy(target: str, count: int, pen: Pen) -> None:
    """A process's whole life, as `count` clients."""
    most_descriptors()
    over = threading.Event()
    clients = [Busy(target, over) for _ in range(count)]
    for client in clients:
        client.start()
    for client in clients:
        client.enough.wait()
    over.set()
    for client in clients:
        client.join()
    failures = Counter(repr(client.failure) for client in clients if client.failure)
    pen.say("done", dict(failures))


def serve(target: str, pen: Pen) -> None:
    from tests.peers import station

    most_descriptors()
    station.serve(target, pen)


@pytest.mark.parametrize("count", [POLLED + 1, 150])
def test_no_client_of_many_waits_for_ever(distinct_two_process_target: str, count: int) -> None:
    if most_clients(distinct_two_process_target, count) < count:
        scheme = parse_target(distinct_two_process_target).scheme
        cannot(f"one user cannot have {count} connections over {scheme}: at once")
    with processes.Peer(serve, distinct_two_process_target) as server:
        server.hear("serving")
        shares = [count // PROCESSES + (i < count % PROCESSES) for i in range(PROCESSES)]
        clients = [
            processes.Peer(keep_busy, distinct_two_process_target, share) for share in shares
        ]
        try:
            for client in clients:
                assert client.hear("done") == ("done", {})
        finally:
            for client in clients:
                client.__exit__()


# One thread is server and clients, so that the scheduler does not decide the order.

METHOD = b"\1\0\0\0/turns/turn"
OPEN = b"\1\0\0\0" + b"\0\0\0\0" + b"\xff" * 8 + b"request"
OPEN_FLAGS = lib.LR_F_MESSAGE | lib.LR_F_END


class Clients:
    """Bare links of a server's engine, each with a call in flight now and then."""

    def __init__(self, kind: Kind, count: int, directory: Path) -> None:
        self._stack = ExitStack()
        self.engine = lib.lr_engine_new(lib.LR_SERVER, 1 << 20, -1, -1)
        self._stack.callback(lib.lr_engine_free, self.engine)
        self._stack.callback(lib.lr_engine_close, self.engine)
        self.ends: dict[int, End] = {}
        self._io = Io()
        self._calls = 0
        for number in range(count):
            folder = directory / str(number)
            folder.mkdir()
            client, server = self._stack.enter_context(pair(kind, folder))
            client.peer = None  # the engine sends what it has begun
            conn = lib.lr_engine_add(self.engine, server.connection.link.take(), 1 << 20)
            assert conn >= 0
            self.ends[conn] = client
            assert client.try_send(Frame(lib.LR_T_METHOD, 0, 0, METHOD)) == 1

    def call(self, conn: int) -> None:
        self._calls += 1
        frame = Frame(lib.LR_T_OPEN, OPEN_FLAGS, self._calls << 32 | 1, OPEN)
        assert self.ends[conn].try_send(frame) == 1

    def serve(self) -> int:
        """Take one call and answer it: whose it was."""
        raw = self._io.raw
        kind = lib.LR_AGAIN
        while kind == lib.LR_AGAIN:
            kind = lib.lr_next_now(self.engine, raw)
        assert kind == lib.LR_K_CALL, "a call was sent and is not found"
        conn = int(raw.conn)
        assert lib.lr_finish(self.engine, raw.call, ffi.NULL, 0, b"x", 1, 0) == 0
        answer = self.ends[conn].receive()
        assert isinstance(answer, Frame)
        assert answer.type == lib.LR_T_STATUS
        return conn

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(
    params=[("shm-small", POLLED + 36), ("unix", POLLED + 36), ("unix", 500)],
    ids="{0[0]}-{0[1]}".format,
)
def clients(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Clients]:
    most_descriptors()
    kind, count = request.param
    many = Clients(KINDS[kind], count, tmp_path)
    yield many
    many.close()


def test_connections_are_served_in_turn(clients: Clients) -> None:
    """While all have calls to be taken none has its second turn much before another its first."""
    for conn in clients.ends:
        clients.call(conn)
    served: Counter[int] = Counter()
    rounds = 6
    for _ in range(rounds * len(clients.ends)):
        conn = clients.serve()
        served[conn] += 1
        clients.call(conn)
    assert len(served) == len(clients.ends)
    assert min(served.values()) >= rounds // 2
    assert max(served.values()) <= rounds * 2


def test_a_call_is_found_wherever_its_connection_is(clients: Clients) -> None:
    """One call at a time, by the busy half and now and then by one of the silent half."""
    order = list(clients.ends)
    busy, silent = order[: len(order) // 2], order[len(order) // 2 :]
    for number, quiet in enumerate(silent):
        for conn in busy[number % 7 :: 7]:
            clients.call(conn)
        clients.call(quiet)
        expected = [*busy[number % 7 :: 7], quiet]
        assert sorted(clients.serve() for _ in expected) == sorted(expected)


def test_a_large_message_holds_up_a_small_call_by_a_burst_at_most(tmp_path: Path) -> None:
    """The burst is bounded in bytes: 64 frames of 64 KiB are more than one."""
    clients = Clients(Kind("shm:{tmp}/link?ring=8M"), 2, tmp_path)
    try:
        large, small = clients.ends
        size, piece = 4 << 20, bytes(lib.LR_PIECE)
        head = OPEN[:16] + size.to_bytes(8, "little")
        flags = lib.LR_F_BIG | lib.LR_F_END
        assert clients.ends[large].try_send(Frame(lib.LR_T_OPEN, flags, 9 << 32 | 9, head)) == 1
        raw = clients._io.raw
        assert lib.lr_next_now(clients.engine, raw) == lib.LR_K_CALL
        assert raw.conn == large
        assert lib.lr_defer(clients.engine, raw.call) == 0
        clients.call(small)
        assert clients.serve() == small  # so the other one has its turn first
        for _ in range(size // len(piece)):
            assert clients.ends[large].try_send(Frame(lib.LR_T_DATA, 0, 9 << 32 | 9, piece)) == 1
        clients.call(small)
        assert clients.serve() == small
        assert clients.ends[large].unseen()
        while clients.ends[large].unseen():
            assert lib.lr_next_now(clients.engine, raw) in (lib.LR_K_YIELD, lib.LR_K_CALL)
    finally:
        clients.close()

"""500 clients at once, and none of them is served much worse than another.

Nothing in an ordinary run, which has tests/concurrency/test_many_clients.py.
"""

from __future__ import annotations

import os
import statistics
import threading
from collections import Counter
from multiprocessing import Pipe
from time import perf_counter
from typing import Any

import pytest

import localrpc
from localrpc.transports import parse_target
from tests.concurrency.test_many_clients import PROCESSES, most_descriptors, serve
from tests.peers.journal import Pen
from tests.peers.processes import Peer
from tests.places import most_clients
from tests.skips import cannot, only_where

CLIENTS = 500
EACH = 200
"""Calls that the slowest client makes."""
FEW = 5
"""By this factor a client's p99, or its number of calls, may differ from the median's."""
LONG = 600.0
"""Seconds after which something that must happen has failed."""

pytestmark = [
    only_where(os.environ.get("LOCALRPC_SOAK") == "full", "500 clients: ./tests/run --soak"),
    pytest.mark.timeout(1800),
]


class Client(threading.Thread):
    """Calls once, and from `go` on without a pause until `over`."""

    def __init__(self, target: str, go: threading.Event, over: threading.Event) -> None:
        super().__init__()
        self.target, self.go, self.over = target, go, over
        self.connected, self.enough = threading.Event(), threading.Event()
        self.times: list[float] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with localrpc.insecure_channel(self.target) as channel:
                self.call(channel.unary_unary("/station/echo"))
        except BaseException as error:
            self.failure = error
        self.connected.set()
        self.enough.set()

    def call(self, echo: Any) -> None:
        assert echo(b"", timeout=LONG, wait_for_ready=True) == b""
        self.connected.set()
        self.go.wait()
        while not self.over.is_set():
            began = perf_counter()
            assert echo(b"x" * 64, timeout=LONG) == b"x" * 64
            self.times.append(perf_counter() - began)
            if len(self.times) == EACH:
                self.enough.set()


def keep_time(target: str, count: int, words: Any, pen: Pen) -> None:
    """A process's whole life, as `count` clients; `words` coordinates the steps."""
    most_descriptors()
    go, over = threading.Event(), threading.Event()
    clients = [Client(target, go, over) for _ in range(count)]
    for client in clients:
        client.start()
    for client in clients:
        client.connected.wait()
    words.send("connected")
    words.recv()
    go.set()
    for client in clients:
        client.enough.wait()
    words.send("enough")
    words.recv()
    over.set()
    for client in clients:
        client.join()
    failures = Counter(repr(client.failure) for client in clients if client.failure)
    calls = [(len(each.times), statistics.quantiles(each.times, n=100)) for each in clients]
    words.send((dict(failures), [(done, centiles[-1]) for done, centiles in calls]))


def test_no_client_of_five_hundred_is_served_much_worse(distinct_two_process_target: str) -> None:
    target = distinct_two_process_target
    if most_clients(target, CLIENTS) < CLIENTS:
        cannot(f"one user cannot have {CLIENTS} connections over {parse_target(target).scheme}:")
    pipes = [Pipe() for _ in range(PROCESSES)]
    share = CLIENTS // PROCESSES

    def hear() -> list[Any]:
        assert all(ours.poll(LONG) for ours, _ in pipes), "a process of clients does not end"
        return [ours.recv() for ours, _ in pipes]

    with Peer(serve, target) as server:
        server.hear("serving")
        peers = [Peer(keep_time, target, share, theirs) for _, theirs in pipes]
        try:
            for step in ("connected", "enough"):
                assert hear() == [step] * PROCESSES
                for ours, _ in pipes:
                    ours.send("go on")
            heard = hear()
        finally:
            for peer in peers:
                peer.__exit__()
    assert [failures for failures, _ in heard] == [{}] * PROCESSES
    counts, centiles = zip(*(client for _, clients in heard for client in clients), strict=True)
    for what, figures in (("calls", counts), ("p99 in ms", [each * 1e3 for each in centiles])):
        least, middle, most = min(figures), statistics.median(figures), max(figures)
        print(f"{target}: {what} of a client: {least:.0f} to {most:.0f}, median {middle:.0f}")
    assert max(centiles) <= FEW * statistics.median(centiles)
    assert min(counts) * FEW >= statistics.median(counts)

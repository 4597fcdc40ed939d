"""What an idle connection costs: hardly a context switch, and little memory.

Loose here, because of what else may run; tests/soak measures.
"""

from __future__ import annotations

import threading
from typing import Any

import localrpc
from tests.peers import processes
from tests.peers.figures import anonymous_memory, context_switches, ring_memory
from tests.peers.journal import PATIENCE
from tests.places import most_clients

MIB = 1 << 20


def test_an_idle_pair_sleeps(two_process_target: str) -> None:
    with (
        processes.server(two_process_target) as server,
        processes.idle_client(two_process_target) as client,
    ):
        pids = (server.pid, client.pid)
        # The figure is a rate, so there is time to pass; the bound is that of a poll loop.
        # A server with ?wakeup=spin spins for a second in case a call comes.
        threading.Event().wait(1.5 if "wakeup=spin" in two_process_target else 0.3)
        before = sum(map(context_switches, pids))
        threading.Event().wait(1)
        assert sum(map(context_switches, pids)) - before <= 20


def test_idle_clients_cost_the_server_little(two_process_target: str) -> None:
    count = most_clients(two_process_target, 20)
    with (
        processes.server(two_process_target) as server,
        localrpc.insecure_channel(two_process_target) as channel,
    ):
        echo: Any = channel.unary_unary("/station/echo")
        echo(b"x", timeout=PATIENCE)
        before = anonymous_memory(server.pid)
        rings = ring_memory(server.pid)
        channels: list[Any] = [localrpc.insecure_channel(two_process_target) for _ in range(count)]
        for one in channels:
            one.unary_unary("/station/echo")(b"x", timeout=PATIENCE)
        assert anonymous_memory(server.pid) - before <= count * 60 * MIB // 100
        assert ring_memory(server.pid) - rings <= count * 5 * MIB // 2
        for one in channels:
            one.close()

"""A server that stops in order, and another in its place, cost no call."""

from __future__ import annotations

import threading
from concurrent import futures
from typing import Any

import grpc

import localrpc
from tests.peers.journal import PATIENCE
from tests.rpc.house import await_that, dial

CLIENTS = 3
RESTARTS = 12
QUICK = (("grpc.initial_reconnect_backoff_ms", 10), ("grpc.max_reconnect_backoff_ms", 50))


def serve(target: str) -> grpc.Server:
    handler: Any = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
    generic = grpc.method_handlers_generic_handler("r", {"echo": handler})
    server = localrpc.server(futures.ThreadPoolExecutor(4), handlers=(generic,))
    server.add_insecure_port(target)
    server.start()
    return server


class Client(threading.Thread):
    """Calls without a pause; `done` calls have ended well so far."""

    def __init__(self, target: str, over: threading.Event) -> None:
        super().__init__()
        self.target, self.over = target, over
        self.done = 0
        self.failures: list[grpc.RpcError] = []

    def run(self) -> None:
        with dial(self.target, QUICK) as channel:
            echo = channel.unary_unary("/r/echo")
            while not self.over.is_set():
                try:
                    assert echo(b"x", wait_for_ready=True, timeout=PATIENCE) == b"x"
                    self.done += 1
                except grpc.RpcError as error:
                    self.failures.append(error)


def test_restarts_with_grace_cost_no_call(distinct_target: str) -> None:
    """A call may be sent when the server has just ended, or lie unread in one of its threads."""
    over = threading.Event()
    clients = [Client(distinct_target, over) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        for _ in range(RESTARTS):
            server = serve(distinct_target)
            before = [client.done for client in clients]
            await_that(
                lambda: all(c.done > b + 20 for c, b in zip(clients, before, strict=True)),  # noqa: B023
                "calls of every client",
            )
            assert server.stop(PATIENCE).wait(PATIENCE)
    finally:
        over.set()
        server = serve(distinct_target)
        for client in clients:
            client.join()
        server.stop(None).wait()
    assert [error for client in clients for error in client.failures] == []

"""A server that stops in order, and another in its place, cost no call."""

from __future__ import annotations

import signal
import threading
from concurrent import futures
from typing import Any

import grpc
import pytest

import localrpc
from localrpc.sync import unary
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


class Waiting:
    """A server whose calls wait; `answer` tells it from another at the same target."""

    def __init__(self, target: str, answer: bytes) -> None:
        self.answer = answer
        self.entered, self.gate = threading.Semaphore(0), threading.Event()
        handler: Any = grpc.unary_unary_rpc_method_handler(self.handle)
        generic = grpc.method_handlers_generic_handler("r", {"wait": handler})
        self.server = localrpc.server(futures.ThreadPoolExecutor(4), handlers=(generic,))
        self.server.add_insecure_port(target)
        self.server.start()

    def handle(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        if request != b"first":
            self.entered.release()
            self.gate.wait(PATIENCE)
        return self.answer + request


def test_a_call_stays_with_its_server_when_another_call_finds_the_next_one(
    distinct_target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The method is one object for all threads; each call has a session of its own."""
    one = Waiting(distinct_target, b"one:")
    channel = dial(distinct_target)
    method = channel.unary_unary("/r/wait")
    assert method(b"first", timeout=PATIENCE) == b"one:first"
    interrupted, others = threading.Event(), futures.ThreadPoolExecutor(1)
    real, main, next_ones = unary._lr_unary, threading.get_ident(), []

    def interrupt() -> None:
        """A signal makes the waiting call come back from the core for a moment."""
        assert one.entered.acquire(timeout=PATIENCE)
        while not interrupted.wait(0.01):
            signal.pthread_kill(main, signal.SIGUSR2)

    def hooked(engine: Any, *rest: Any) -> Any:
        length = real(engine, *rest)
        if threading.get_ident() == main and not interrupted.is_set():
            interrupted.set()
            assert length == unary._AGAIN
            one.server.stop(PATIENCE)
            two = Waiting(distinct_target, b"two:")
            assert method(b"first", timeout=PATIENCE, wait_for_ready=True) == b"two:first"
            # Now there are calls of the same number at both servers.
            next_ones.append((two, others.submit(method, b"B", timeout=PATIENCE)))
            assert two.entered.acquire(timeout=PATIENCE)
            one.gate.set()
        return length

    before = signal.signal(signal.SIGUSR2, lambda *_: None)
    monkeypatch.setattr(unary, "_lr_unary", hooked)
    killer = threading.Thread(target=interrupt)
    killer.start()
    try:
        assert method(b"A", timeout=PATIENCE) == b"one:A"
        [(two, other)] = next_ones
        two.gate.set()
        assert other.result(PATIENCE) == b"two:B"
    finally:
        interrupted.set()
        killer.join()
        signal.signal(signal.SIGUSR2, before)
        one.gate.set()
        for two, _ in next_ones:
            two.gate.set()
            two.server.stop(None)
        channel.close()
        one.server.stop(None)
        others.shutdown()

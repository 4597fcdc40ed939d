"""A server that stops in order, and another in its place, cost no call."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

import localrpc
from localrpc.drive import dialling
from localrpc.options import Options
from localrpc.sync import unary
from localrpc.transports.handshake import make_hello
from localrpc.wire.greeting import hello_frame
from tests.conftest import DISTINCT
from tests.peers.journal import PATIENCE
from tests.places import listen, occupy, place_of
from tests.rpc.house import await_that, dial

CLIENTS = 3
FULL = os.environ.get("LOCALRPC_SOAK") == "full"
RESTARTS = 50 if FULL else 12
NEWCOMERS = 200 if FULL else 20
"""At least so many clients make one call between two restarts."""
NEWCOMERS_COME_TO = (
    DISTINCT if FULL else ["shm-eventfd", "unix", "pipe", "tcp", "mq", "sysvmq", "file"]
)
"""Each kind of place where a server meets its clients."""
QUICK = (("grpc.initial_reconnect_backoff_ms", 10), ("grpc.max_reconnect_backoff_ms", 50))

pytestmark = pytest.mark.timeout(1800 if FULL else 120)


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
            while not self.over.is_set():
                self.call(channel)

    def call(self, channel: Any) -> None:
        echo = channel.unary_unary("/r/echo")
        try:
            assert echo(b"x", wait_for_ready=True, timeout=PATIENCE) == b"x"
            self.done += 1
        except grpc.RpcError as error:
            self.failures.append(error)


class Newcomers(Client):
    """Each of its calls is a new client's first and last."""

    def run(self) -> None:
        while not self.over.is_set():
            with dial(self.target, QUICK) as channel:
                self.call(channel)


def restart(target: str, kind: type[Client], calls: int) -> int:
    """Restarts with calls going on, `calls` of each client in between; how many there were."""
    over = threading.Event()
    clients = [kind(target, over) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    server = serve(target)
    try:
        for _ in range(RESTARTS):
            before = [client.done for client in clients]
            await_that(
                lambda: all(c.done > b + calls for c, b in zip(clients, before, strict=True)),  # noqa: B023
                "calls of every client",
            )
            assert server.stop(PATIENCE).wait(PATIENCE)
            server = serve(target)
    finally:
        over.set()
        for client in clients:
            client.join()
        server.stop(None).wait()
    assert [error for client in clients for error in client.failures] == []
    return sum(client.done for client in clients)


def test_restarts_with_grace_cost_no_call(distinct_target: str) -> None:
    """A call may be sent when the server has just ended, or lie unread in one of its threads."""
    restart(distinct_target, Client, 5)


@pytest.mark.parametrize("target", NEWCOMERS_COME_TO, indirect=True)
def test_restarts_with_grace_cost_no_new_client(target: str) -> None:
    """It may be in the backlog, or be greeted, or have been let in just now."""
    calls = NEWCOMERS // CLIENTS
    assert restart(target, Newcomers, calls) >= RESTARTS * calls * CLIENTS


def hangs_up(client: socket.socket) -> None:
    pass


def hangs_up_in_its_hello(client: socket.socket) -> None:
    client.sendall(hello_frame(make_hello(Options()))[:20])


def says_that_it_stops(client: socket.socket) -> None:
    client.sendall(hello_frame(make_hello(Options(), refusal="later", going=True)))


LAST_WORDS = [hangs_up, hangs_up_in_its_hello, says_that_it_stops]


@pytest.mark.parametrize("last_word", LAST_WORDS)
@pytest.mark.parametrize("target", ["unix", "unix-abstract", "tcp"], indirect=True)
def test_a_client_that_reaches_a_stopping_server_dials_again(
    target: str, last_word: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No server has seen its call, and the next server listens at the same socket."""
    monkeypatch.setattr(dialling, "_REDIAL_LIMIT", PATIENCE)
    listening = listen(target)
    with futures.ThreadPoolExecutor(1) as pool, dial(target) as channel:
        calling = pool.submit(channel.unary_unary("/r/echo"), b"x", timeout=PATIENCE)
        client, _ = listening.accept()
        last_word(client)
        client.close()
        server = serve(f"fd:{listening.detach()}")
        assert calling.result(PATIENCE) == b"x"
        server.stop(None).wait()


@pytest.mark.parametrize("last_word", LAST_WORDS)
def test_a_client_gives_up_if_every_server_is_stopping(
    last_word: Callable[[socket.socket], None], tmp_path: Path
) -> None:
    target = f"unix:{tmp_path}/s"
    met = []
    with listen(target) as listening:

        def turn_away() -> None:
            while True:
                client, _ = listening.accept()
                with client:
                    if client.recv(1 << 16):
                        met.append(client)
                        last_word(client)
                    else:
                        return

        turning = threading.Thread(target=turn_away)
        turning.start()
        with dial(target) as channel, pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/r/echo")(b"x", timeout=PATIENCE)
        with socket.socket(*place_of(target)[:1]) as last:
            last.connect(place_of(target)[1])
        turning.join()
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "the handshake failed" in error.details()
    assert len(met) == len(dialling._PASSING_PAUSES) + 1


def test_without_a_next_server_a_call_fails_with_the_first_refusal(
    distinct_two_process_target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before its deadline: it does not wait for a server."""
    monkeypatch.setattr(dialling, "_REDIAL_LIMIT", 0.05)
    with (
        occupy(distinct_two_process_target) as listening,
        futures.ThreadPoolExecutor(1) as pool,
        dial(distinct_two_process_target) as channel,
    ):
        calling = pool.submit(channel.unary_unary("/r/echo"), b"x", timeout=PATIENCE)
        with listening.accept()[0]:
            pass
        error: Any = calling.exception()
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "the handshake failed: it closed the connection without a HELLO" in error.details()


def test_close_wakes_a_call_that_is_about_to_dial_again(
    one_target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else would in time."""
    begins = threading.Event()

    def pauses() -> Iterator[float]:
        begins.set()
        yield 10 * PATIENCE

    monkeypatch.setattr(dialling, "_PASSING_PAUSES", pauses())
    with listen(one_target) as listening, futures.ThreadPoolExecutor(1) as pool:
        channel = dial(one_target)
        calling = pool.submit(channel.unary_unary("/r/echo"), b"x")
        listening.accept()[0].close()
        assert begins.wait(PATIENCE)
        channel.close()
        error: Any = calling.exception(PATIENCE)
        assert error.code() is grpc.StatusCode.CANCELLED


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
        while not one.entered.acquire(timeout=0.01):
            if interrupted.is_set():
                return  # it has come back of itself, and waits for the handler, too
        one.entered.release()
        while not interrupted.wait(0.01):
            signal.pthread_kill(main, signal.SIGUSR2)

    def hooked(engine: Any, *rest: Any) -> Any:
        length = real(engine, *rest)
        if threading.get_ident() == main and not interrupted.is_set():
            interrupted.set()
            assert length == unary._AGAIN
            # It may come back of itself, too, before its handler has begun.
            assert one.entered.acquire(timeout=PATIENCE)
            one.entered.release()  # the thread that interrupts waits for it, too
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

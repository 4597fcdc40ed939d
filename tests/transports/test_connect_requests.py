"""Connect requests: their form, their tokens, and places that are full or unattended."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent import futures
from pathlib import Path

import pytest

from localrpc.errors import ConnectError, GreetingError
from localrpc.options import Options
from localrpc.transports import parse_target, sysv, transport_for
from localrpc.transports.connect_requests import (
    CONNECT_REQUEST_SIZE,
    ConnectRequestParser,
    encode_connect_request,
    new_token,
)

from . import request_places
from .helpers import (
    AcceptingServer,
    dial,
    listening,
    readable,
)
from .request_places import goes_on

target = request_places.target


def test_connect_requests_are_found_in_any_bytes() -> None:
    tokens = [new_token() for _ in range(4)]
    noise = [b"", b"x", b"localrp", b"localrpc" * 2]
    run = b"".join(a + encode_connect_request(b) for a, b in zip(noise, tokens, strict=True))
    for size in (1, 7, CONNECT_REQUEST_SIZE, len(run)):
        parser = ConnectRequestParser()
        found = [
            token for at in range(0, len(run), size) for token in parser.feed(run[at : at + size])
        ]
        assert found == tokens
        assert parser.skipped == sum(map(len, noise))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        bytes(CONNECT_REQUEST_SIZE),
        b"\xff" * 24,
        b"localrpc" + b"../../etc/passwd",
        b"localrpc",
    ],
    ids=["empty", "short", "zeros", "random", "path", "torn"],
)
def test_bytes_that_are_not_a_request_are_skipped(target: str, data: bytes) -> None:
    with AcceptingServer(target) as accepting:
        with request_places.place_of(target) as place:
            place.push(data)
        goes_on(accepting, target)


def test_a_request_without_a_client_is_skipped(
    target: str, caplog: pytest.LogCaptureFixture
) -> None:
    with AcceptingServer(target) as accepting:
        with request_places.place_of(target) as place:
            for _ in range(3):
                place.send_request(new_token())
        goes_on(accepting, target)
        assert not accepting.greetings
    assert "refused" not in caplog.text


def test_a_flood_of_requests_does_not_keep_clients_out(target: str) -> None:
    with AcceptingServer(target) as accepting:
        with request_places.place_of(target) as place:
            for _ in range(20):
                place.fill()
        goes_on(accepting, target)


def test_a_message_longer_than_a_request_is_cut(tmp_path: Path) -> None:
    target = "sysvmq:server"
    with AcceptingServer(target) as accepting:
        with request_places.place_of(target) as place:
            place.push(bytes(8192))
        goes_on(accepting, target)


# ---- places that are full, stopped or closing ----


def test_a_client_waits_for_room_until_its_deadline(target: str) -> None:
    address = parse_target(target)
    with listening(target) as holder:
        os.kill(holder.pid, signal.SIGSTOP)
        with request_places.place_of(target) as place:
            place.fill()
            with pytest.raises(ConnectError, match="it is stopped or busy"):
                dial(target, deadline=time.monotonic() + 0.05)
        holder.kill()
    with AcceptingServer(str(address)) as accepting:
        goes_on(accepting, target)


@pytest.mark.parametrize("full", [False, True], ids=["waiting", "full"])
def test_a_server_that_dies_under_a_waiting_client_is_noticed(target: str, full: bool) -> None:
    with listening(target) as holder, futures.ThreadPoolExecutor(1) as pool:
        os.kill(holder.pid, signal.SIGSTOP)
        if full:
            with request_places.place_of(target) as place:
                place.fill()
        waiting = pool.submit(dial, target, ("localrpc.connect_timeout_ms", 60_000))
        holder.kill()
        error = waiting.exception(20)
        assert isinstance(error, ConnectError)
        assert "in time" not in str(error)
    with AcceptingServer(target):
        pass


def test_a_closing_listener_ends_clients_with_requests(target: str) -> None:
    address = parse_target(target)
    listener = transport_for(address.scheme).listen(address, Options())
    with futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(dial, target, ("localrpc.connect_timeout_ms", 60_000))
        assert readable(listener.fileno())
        listener.close()
        assert isinstance(waiting.exception(20), ConnectError)


def test_servers_that_come_and_go_leave_no_client_waiting(target: str) -> None:
    over = threading.Event()

    def send_requests() -> int:
        met = 0
        while not over.is_set():
            try:
                dial(target, ("localrpc.connect_timeout_ms", 60_000)).close()
                met += 1
            except ConnectError as error:
                if "in time" in str(error):
                    raise
        return met

    with futures.ThreadPoolExecutor(3) as pool:
        clients = [pool.submit(send_requests) for _ in range(3)]
        for _ in range(20):
            AcceptingServer(target).close()
        with AcceptingServer(target) as accepting:
            accepting.connection()
            over.set()
            for client in clients:
                client.result(20)


# ---- tokens ----


@pytest.mark.parametrize("thing", ["file", "link", "folder", "one of two"])
def test_a_token_of_anything_but_fifos_is_refused(
    thing: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = f"pipe:{tmp_path}/server"
    token = new_token()
    os.mkfifo(tmp_path / "fifo")
    for end in request_places.fifo_ends(target, token):
        if thing == "file":
            Path(end).write_text("precious")
        elif thing == "link":
            Path(end).symlink_to(tmp_path / "fifo")
        elif thing == "folder":
            Path(end).mkdir()
        elif end.endswith("up"):
            os.mkfifo(end)
    with AcceptingServer(target) as accepting:
        with request_places.place_of(target) as place:
            place.send_request(token)
        goes_on(accepting, target)
        assert not accepting.connections[1:]
    assert ("a client was refused" in caplog.text) is (thing != "one of two")


def test_a_request_without_a_hello_times_out(tmp_path: Path) -> None:
    target = f"pipe:{tmp_path}/server"
    token = new_token()
    ends = request_places.fifo_ends(target, token)
    with AcceptingServer(target, ("localrpc.greeting_timeout_ms", 30)) as accepting:
        for end in ends:
            os.mkfifo(end)
        reading = os.open(ends.down, os.O_RDONLY | os.O_NONBLOCK)
        with request_places.place_of(target) as place:
            place.send_request(token)
        assert isinstance(accepting.error(), TimeoutError)
        os.close(reading)
        goes_on(accepting, target)


def test_a_client_that_hangs_up_before_its_hello_is_noticed(tmp_path: Path) -> None:
    target = f"pipe:{tmp_path}/server"
    token = new_token()
    ends = request_places.fifo_ends(target, token)
    with AcceptingServer(target) as accepting:
        for end in ends:
            os.mkfifo(end)
        reading = os.open(ends.down, os.O_RDONLY | os.O_NONBLOCK)
        up = os.open(ends.up, os.O_RDWR | os.O_NONBLOCK)
        with request_places.place_of(target) as place:
            place.send_request(token)
        accepting.wait_for(lambda: bool(accepting.greetings))
        os.close(up)
        os.close(reading)
        error = accepting.error()
        assert isinstance(error, GreetingError)
        assert error.quiet


def test_a_queue_that_its_peer_has_removed_is_a_peer_that_has_gone() -> None:
    """A handshake that it interrupts is not logged: a client may give up at any moment."""
    queue = sysv.make(sysv.new_key())
    sysv.drop(queue)
    for use in (lambda: sysv.send(queue, b"x"), lambda: sysv.owner_of(queue)):
        with pytest.raises(ConnectionResetError, match="the peer has removed its queue"):
            use()
    assert sysv.receive(queue, wait=False) is None

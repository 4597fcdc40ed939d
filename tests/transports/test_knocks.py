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
from localrpc.transports import parse_target, transport_for
from localrpc.transports.meeting import KNOCK_SIZE, Knocks, encode_knock, new_token

from . import meetings
from .doors import (
    Doorman,
    dial,
    listening,
    readable,
)
from .meetings import goes_on

target = meetings.target


def test_connect_requests_are_found_in_any_bytes() -> None:
    tokens = [new_token() for _ in range(4)]
    noise = [b"", b"x", b"localrp", b"localrpc" * 2]
    run = b"".join(a + encode_knock(b) for a, b in zip(noise, tokens, strict=True))
    for size in (1, 7, KNOCK_SIZE, len(run)):
        knocks = Knocks()
        found = [
            token for at in range(0, len(run), size) for token in knocks.feed(run[at : at + size])
        ]
        assert found == tokens
        assert knocks.skipped == sum(map(len, noise))


@pytest.mark.parametrize(
    "data",
    [b"", b"x", bytes(KNOCK_SIZE), b"\xff" * 24, b"localrpc" + b"../../etc/passwd", b"localrpc"],
    ids=["empty", "short", "zeros", "random", "path", "torn"],
)
def test_bytes_that_are_not_a_request_are_skipped(target: str, data: bytes) -> None:
    with Doorman(target) as doorman:
        with meetings.door_of(target) as door:
            door.push(data)
        goes_on(doorman, target)


def test_a_request_without_a_client_is_skipped(
    target: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Doorman(target) as doorman:
        with meetings.door_of(target) as door:
            for _ in range(3):
                door.knock(new_token())
        goes_on(doorman, target)
        assert not doorman.greetings
    assert "refused" not in caplog.text


def test_a_flood_of_requests_does_not_keep_clients_out(target: str) -> None:
    with Doorman(target) as doorman:
        with meetings.door_of(target) as door:
            for _ in range(20):
                door.fill()
        goes_on(doorman, target)


def test_a_message_longer_than_a_request_is_cut(tmp_path: Path) -> None:
    target = "sysvmq:door"
    with Doorman(target) as doorman:
        with meetings.door_of(target) as door:
            door.push(bytes(8192))
        goes_on(doorman, target)


# ---- places that are full, stopped or closing ----


def test_a_client_waits_for_room_until_its_deadline(target: str) -> None:
    address = parse_target(target)
    with listening(target) as holder:
        os.kill(holder.pid, signal.SIGSTOP)
        with meetings.door_of(target) as door:
            door.fill()
            with pytest.raises(ConnectError, match="it is stopped or busy"):
                dial(target, deadline=time.monotonic() + 0.05)
        holder.kill()
    with Doorman(str(address)) as doorman:
        goes_on(doorman, target)


@pytest.mark.parametrize("full", [False, True], ids=["waiting", "full"])
def test_a_server_that_dies_under_a_waiting_client_is_noticed(target: str, full: bool) -> None:
    with listening(target) as holder, futures.ThreadPoolExecutor(1) as pool:
        os.kill(holder.pid, signal.SIGSTOP)
        if full:
            with meetings.door_of(target) as door:
                door.fill()
        waiting = pool.submit(dial, target, ("localrpc.connect_timeout_ms", 60_000))
        holder.kill()
        error = waiting.exception(20)
        assert isinstance(error, ConnectError)
        assert "in time" not in str(error)
    with Doorman(target):
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

    def knock_on() -> int:
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
        clients = [pool.submit(knock_on) for _ in range(3)]
        for _ in range(20):
            Doorman(target).close()
        with Doorman(target) as doorman:
            doorman.connection()
            over.set()
            for client in clients:
                client.result(20)


# ---- tokens ----


@pytest.mark.parametrize("thing", ["file", "link", "folder", "one of two"])
def test_a_token_of_anything_but_fifos_is_refused(
    thing: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = f"pipe:{tmp_path}/door"
    token = new_token()
    os.mkfifo(tmp_path / "fifo")
    for end in meetings.fifo_ends(target, token):
        if thing == "file":
            Path(end).write_text("precious")
        elif thing == "link":
            Path(end).symlink_to(tmp_path / "fifo")
        elif thing == "folder":
            Path(end).mkdir()
        elif end.endswith("up"):
            os.mkfifo(end)
    with Doorman(target) as doorman:
        with meetings.door_of(target) as door:
            door.knock(token)
        goes_on(doorman, target)
        assert not doorman.connections[1:]
    assert ("a client was refused" in caplog.text) is (thing != "one of two")


def test_a_request_without_a_hello_times_out(tmp_path: Path) -> None:
    target = f"pipe:{tmp_path}/door"
    token = new_token()
    ends = meetings.fifo_ends(target, token)
    with Doorman(target, ("localrpc.greeting_timeout_ms", 30)) as doorman:
        for end in ends:
            os.mkfifo(end)
        reading = os.open(ends.down, os.O_RDONLY | os.O_NONBLOCK)
        with meetings.door_of(target) as door:
            door.knock(token)
        assert isinstance(doorman.error(), TimeoutError)
        os.close(reading)
        goes_on(doorman, target)


def test_a_client_that_hangs_up_before_its_hello_is_noticed(tmp_path: Path) -> None:
    target = f"pipe:{tmp_path}/door"
    token = new_token()
    ends = meetings.fifo_ends(target, token)
    with Doorman(target) as doorman:
        for end in ends:
            os.mkfifo(end)
        reading = os.open(ends.down, os.O_RDONLY | os.O_NONBLOCK)
        up = os.open(ends.up, os.O_RDWR | os.O_NONBLOCK)
        with meetings.door_of(target) as door:
            door.knock(token)
        doorman.wait_for(lambda: bool(doorman.greetings))
        os.close(up)
        os.close(reading)
        error = doorman.error()
        assert isinstance(error, GreetingError)
        assert error.quiet

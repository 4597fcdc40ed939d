"""A listener's clients are let in on the terms that it was given, and leave once."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from localrpc.errors import GreetingError
from localrpc.options import Options
from localrpc.transports import Admission, Connection, Listener, parse_target, transport_for
from localrpc.transports.handshake import make_hello
from localrpc.wire.greeting import hello_frame

from .helpers import readable


class Gate:
    """Records which clients have come and gone."""

    def __init__(self, refusal: str | None = None) -> None:
        self.refusal = refusal
        self.log: list[tuple[str, int]] = []

    def enter(self, uid: int) -> str | None:
        self.log.append(("enter", uid))
        return self.refusal

    def leave(self, uid: int) -> None:
        self.log.append(("leave", uid))


def listen(gate: Gate, folder: Path) -> Listener:
    address = parse_target(f"unix:{folder}/server")
    admission = Admission(gate.enter, gate.leave, "local")
    return transport_for("unix").listen(address, Options(), admission)


def outcome_of(listener: Listener, said: bytes) -> Connection | GreetingError:
    """Return what becomes of a client that sends this and closes."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(listener.address.body)
        client.sendall(said)
        client.shutdown(socket.SHUT_WR)
        assert readable(listener.fileno())
        (greeting,) = listener.accept()
        try:
            while (connection := greeting.advance()) is None:
                assert readable(greeting.fileno())
        except GreetingError as error:
            return error
        return connection


HELLO = hello_frame(make_hello(Options()))
ENTERED, LEFT = ("enter", os.geteuid()), ("leave", os.geteuid())


def test_a_client_leaves_once_when_its_connection_is_closed(tmp_path: Path) -> None:
    gate = Gate()
    listener = listen(gate, tmp_path)
    connection = outcome_of(listener, HELLO)
    assert isinstance(connection, Connection)
    assert connection.security == "local"
    assert gate.log == [ENTERED]
    connection.close()
    connection.close()
    assert gate.log == [ENTERED, LEFT]
    listener.close()


@pytest.mark.parametrize(
    "said",
    [b"", b"not a HELLO, by any means", HELLO[:-1]],
    ids=["nothing", "something else", "a part of a HELLO"],  # which has this process's number
)
def test_a_client_that_is_turned_away_has_left(said: bytes, tmp_path: Path) -> None:
    gate = Gate()
    listener = listen(gate, tmp_path)
    assert isinstance(outcome_of(listener, said), GreetingError)
    assert gate.log == [ENTERED, LEFT]
    listener.close()


def test_a_client_that_was_not_let_in_does_not_leave(tmp_path: Path) -> None:
    gate = Gate(refusal="the house is full")
    listener = listen(gate, tmp_path)
    error = outcome_of(listener, HELLO)
    assert "the house is full" in str(error)
    assert gate.log == [ENTERED]
    listener.close()


def test_a_client_that_is_given_up_has_left(tmp_path: Path) -> None:
    gate = Gate()
    listener = listen(gate, tmp_path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{tmp_path}/server")
        assert readable(listener.fileno())
        (greeting,) = listener.accept()
        assert greeting.advance() is None
        assert gate.log == [ENTERED]
        greeting.close()
        greeting.close()
    assert gate.log == [ENTERED, LEFT]
    listener.close()

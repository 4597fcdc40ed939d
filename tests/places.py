"""Foreign sockets at the places that targets name, and other names for them."""

from __future__ import annotations

import os
import socket
from contextlib import AbstractContextManager
from typing import Any, Protocol

from localrpc.address import Address
from localrpc.transports import parse_target
from tests import foreign
from tests.ports import free_port


class ForeignSocket(AbstractContextManager[Any], Protocol):
    """What came in, or is answered: a socket, or something like it."""

    def sendall(self, data: bytes, /) -> object: ...


class Place(AbstractContextManager[Any], Protocol):
    """What stands in a server's place: a listening socket, or something like it."""

    def accept(self) -> tuple[ForeignSocket, Any]: ...


def place_of(target: str) -> tuple[socket.AddressFamily, Any]:
    """Where a server of that target listens: a family, and what connect() and bind() take."""
    target = target.removeprefix("grpc:")
    if target[0].isdigit():  # as grpcio spells it
        target = f"tcp:{target}"
    address: Address = parse_target(target)
    if address.scheme == "tcp":
        host, _, port = address.body.rpartition(":")
        return socket.AF_INET, (host, int(port))
    if address.scheme == "unix-abstract":
        return socket.AF_UNIX, f"\0{address.body}"
    if address.scheme == "shm" and not address.body.startswith("/"):
        return socket.AF_UNIX, f"{os.environ['LOCALRPC_RUNTIME_DIR']}/{address.body}.shm"
    return socket.AF_UNIX, address.body


def connect(target: str) -> socket.socket:
    """Connect to the server there, without a handshake."""
    family, place = place_of(target)
    sock = socket.socket(family)
    try:
        sock.connect(place)
    except BaseException:
        sock.close()
        raise
    return sock


def listen(target: str) -> socket.socket:
    """Listen there without being a server."""
    family, place = place_of(target)
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(place)
    sock.listen()
    return sock


def visit(target: str) -> ForeignSocket:
    """As connect(), for any kind of target."""
    kind = foreign.KINDS.get(target.partition(":")[0])
    return kind.visit(parse_target(target)) if kind else connect(target)


def occupy(target: str) -> Place:
    """As listen(), for any kind of target."""
    kind = foreign.KINDS.get(target.partition(":")[0])
    return kind.occupy(parse_target(target)) if kind else listen(target)


def another_name(target: str) -> str:
    """Return a target of the same kind without a server."""
    scheme, colon, rest = target.partition(":")
    body, question, options = rest.partition("?")
    if scheme == "tcp":
        body = f"127.0.0.1:{free_port()}"
    else:
        body += "-other"
    return f"{scheme}{colon}{body}{question}{options}"


def most_clients(target: str, wanted: int) -> int:
    """`wanted`, or what a user's limit leaves to each of several test runs.

    It is on POSIX queues, and on inotify instances (128), of which a connection takes two.
    """
    most = {"mq": 5, "file": 10}.get(target.partition(":")[0], wanted)
    return min(wanted, most)

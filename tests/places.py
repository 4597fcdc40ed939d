"""Sockets of the tests' own at the places that targets name, and other names for them."""

from __future__ import annotations

import os
import socket
from typing import Any

from localrpc.address import Address, parse_target
from tests.ports import free_port


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
    """A connection to whoever listens there, without a greeting."""
    family, place = place_of(target)
    sock = socket.socket(family)
    try:
        sock.connect(place)
    except BaseException:
        sock.close()
        raise
    return sock


def listen(target: str) -> socket.socket:
    """A stranger in the place of a server."""
    family, place = place_of(target)
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(place)
    sock.listen()
    return sock


def another_name(target: str) -> str:
    """A target of the same kind, at which nobody listens."""
    scheme, colon, rest = target.partition(":")
    body, question, options = rest.partition("?")
    if scheme == "tcp":
        body = f"127.0.0.1:{free_port()}"
    else:
        body += "-other"
    return f"{scheme}{colon}{body}{question}{options}"

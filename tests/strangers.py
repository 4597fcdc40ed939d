"""Strangers at places that are no sockets: each like a socket in what the tests do with it."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from typing import Any, NamedTuple, Protocol

from localrpc.address import Address
from localrpc.options import Options
from localrpc.transports import inproc, pipe
from localrpc.transports.door import SocketGreeting
from localrpc.transports.meeting import KNOCK_SIZE, Knocks
from tests.peers.journal import PATIENCE


class Kind(Protocol):
    def visit(self, address: Address) -> Any: ...

    def occupy(self, address: Address) -> Any: ...


class Writer(NamedTuple):
    """A descriptor to write to."""

    fd: int

    def sendall(self, data: bytes) -> None:
        os.write(self.fd, data)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


class FifoPlace:
    """A FIFO that somebody reads who is no server."""

    def __init__(self, address: Address) -> None:
        self._path = address.body
        os.mkfifo(self._path, 0o600)
        self._fd = os.open(self._path, os.O_RDWR)

    def accept(self) -> tuple[Writer, None]:
        assert select.select([self._fd], [], [], PATIENCE)[0]
        (token,) = Knocks().feed(os.read(self._fd, KNOCK_SIZE))
        return Writer(os.open(pipe.ends(self._path, token).down, os.O_WRONLY)), None

    def __enter__(self) -> FifoPlace:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)


class _Fifo:
    def visit(self, address: Address) -> Writer:
        return Writer(os.open(address.body, os.O_WRONLY))

    def occupy(self, address: Address) -> FifoPlace:
        return FifoPlace(address)


class InprocPlace:
    """A listener of this process that is no server."""

    def __init__(self, address: Address) -> None:
        self._listener = inproc.InprocTransport().listen(address, Options())

    def accept(self) -> tuple[socket.socket, None]:
        assert select.select([self._listener], [], [], PATIENCE)[0]
        (greeting,) = self._listener.accept()
        assert isinstance(greeting, SocketGreeting)
        return greeting.medium.sock, None

    def __enter__(self) -> InprocPlace:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()


class _Inproc:
    def visit(self, address: Address) -> socket.socket:
        sock = inproc.connect(address)
        sock.setblocking(True)
        return sock

    def occupy(self, address: Address) -> InprocPlace:
        return InprocPlace(address)


KINDS: dict[str, Kind] = {"pipe": _Fifo(), "inproc": _Inproc()}

"""Connections between two processes over the system's primitives: sockets, and pipes.

This module opens them; an echo in Python (bare.py) or a loop in C (floors.py) uses them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path

from .exchange import beside


class How(Enum):
    """How src/floor.c uses a way; the value is its name for it."""

    DESCRIPTOR = "LR_FLOOR_DESCRIPTOR"
    MQUEUE = "LR_FLOOR_MQUEUE"
    SYSV = "LR_FLOOR_SYSV"


@dataclass
class Way:
    """One thread's two directions to its peer: bytes in order, and waiting for them.

    `read` takes the most bytes that are wanted, which a queue that preserves messages may ignore,
    and returns nothing once the peer has gone; both may raise OSError then. `rx` and `tx` are what
    `how` says; if it is None, no floor can be made.
    """

    read: Callable[[int], bytes]
    write: Callable[[bytes], object]
    close: Callable[[], object]
    how: How | None = None
    rx: int = -1
    tx: int = -1


class Primitive(ABC):
    """What two processes share once they have connected through a Unix socket."""

    module = ""
    """A module that it imports and that may not be installed."""
    package = ""
    """The name of its package for pip."""

    def listen(self, path: str, serve: Callable[[Way], object]) -> AbstractContextManager[None]:
        """Run `serve` on a thread for each client."""
        bound = socket.socket(socket.AF_UNIX)
        bound.bind(path)
        return accepting(bound, lambda sock: serve(self.server(sock)))

    def dial(self, path: str) -> Way:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        return self.client(sock)

    @abstractmethod
    def server(self, sock: socket.socket) -> Way:
        """Return the server's side of the way that `client` makes; each owns its socket."""

    @abstractmethod
    def client(self, sock: socket.socket) -> Way: ...


@contextmanager
def accepting(bound: socket.socket, serve: Callable[[socket.socket], object]) -> Iterator[None]:
    """Run `serve` on a thread for each client of a bound socket, which this function closes."""
    bound.listen(128)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = bound.accept()
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    with closing(bound), beside(accept, partial(bound.shutdown, socket.SHUT_RDWR)):
        yield


class UnixSocket(Primitive):
    """The socket through which they have connected, and nothing else."""

    def server(self, sock: socket.socket) -> Way:
        fd = sock.fileno()
        return Way(sock.recv, sock.sendall, sock.close, How.DESCRIPTOR, fd, fd)

    client = server


class TcpSocket(UnixSocket):
    """A socket on the loopback interface; the path is a file that has the port number."""

    def listen(self, path: str, serve: Callable[[Way], object]) -> AbstractContextManager[None]:
        bound = socket.create_server(("127.0.0.1", 0))
        Path(path).write_text(str(bound.getsockname()[1]))
        return accepting(bound, lambda sock: serve(self.server(sock)))

    def dial(self, path: str) -> Way:
        return self.client(socket.create_connection(("127.0.0.1", int(Path(path).read_text()))))

    def server(self, sock: socket.socket) -> Way:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return super().server(sock)

    client = server


class Pipes(Primitive):
    """The client's pipes, whose other ends it hands over."""

    def server(self, sock: socket.socket) -> Way:
        with sock:
            _, fds, _, _ = socket.recv_fds(sock, 1, 2, socket.MSG_CMSG_CLOEXEC)
        return self._way(*fds)

    def client(self, sock: socket.socket) -> Way:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        with sock:
            socket.send_fds(sock, [b"x"], [theirs_in, theirs_out])
        os.close(theirs_in)
        os.close(theirs_out)
        return self._way(ours_in, ours_out)

    def _way(self, rx: int, tx: int) -> Way:
        fds = [rx, tx]

        def close() -> None:
            while fds:
                os.close(fds.pop())

        return Way(partial(os.read, rx), partial(write_all, tx), close, How.DESCRIPTOR, rx, tx)


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def hand_over(sock: socket.socket, *words: object) -> None:
    """Tell the server what to open. Raises ConnectionError unless it confirms that it has."""
    sock.sendall(" ".join(map(str, words)).encode())
    if not sock.recv(1):
        raise ConnectionError("the server has not opened what the client created for it")


def handed_over(sock: socket.socket) -> list[str]:
    return sock.recv(4096).decode().split()

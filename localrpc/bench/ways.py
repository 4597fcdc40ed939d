"""Ways between two processes, over what the system has: sockets, and pipes.

How two come to share one is here once. What travels is up to who asks: an echo in
Python (bare.py), or a loop in C (floors.py).
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

    `read` takes the most bytes that are wanted, which a queue that keeps messages
    need not heed, and returns nothing once the peer has gone; both may raise
    OSError then. `rx` and `tx` are what `how` says; without one, no floor can be made.
    """

    read: Callable[[int], bytes]
    write: Callable[[bytes], object]
    close: Callable[[], object]
    how: How | None = None
    rx: int = -1
    tx: int = -1


class Primitive(ABC):
    """What two processes have in common once they have met at a Unix socket."""

    module = ""
    """What it imports that may not be installed."""
    package = ""
    """What pip calls that."""

    def listen(self, path: str, serve: Callable[[Way], object]) -> AbstractContextManager[None]:
        """Each client gets a thread that runs `serve`."""
        door = socket.socket(socket.AF_UNIX)
        door.bind(path)
        return accepting(door, lambda sock: serve(self.server(sock)))

    def dial(self, path: str) -> Way:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        return self.client(sock)

    @abstractmethod
    def server(self, sock: socket.socket) -> Way:
        """The server's side of the way that `client` makes; either owns its socket."""

    @abstractmethod
    def client(self, sock: socket.socket) -> Way: ...


@contextmanager
def accepting(door: socket.socket, serve: Callable[[socket.socket], object]) -> Iterator[None]:
    """Each client of a bound socket gets a thread that runs `serve`. Owns the door."""
    door.listen(128)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = door.accept()
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    with closing(door), beside(accept, partial(door.shutdown, socket.SHUT_RDWR)):
        yield


class UnixSocket(Primitive):
    """The socket that they have met at, and nothing else."""

    def server(self, sock: socket.socket) -> Way:
        fd = sock.fileno()
        return Way(sock.recv, sock.sendall, sock.close, How.DESCRIPTOR, fd, fd)

    client = server


class TcpSocket(UnixSocket):
    """On the loopback interface; the path is a file that has the port's number."""

    def listen(self, path: str, serve: Callable[[Way], object]) -> AbstractContextManager[None]:
        door = socket.create_server(("127.0.0.1", 0))
        Path(path).write_text(str(door.getsockname()[1]))
        return accepting(door, lambda sock: serve(self.server(sock)))

    def dial(self, path: str) -> Way:
        return self.client(socket.create_connection(("127.0.0.1", int(Path(path).read_text()))))

    def server(self, sock: socket.socket) -> Way:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return super().server(sock)

    client = server


class Pipes(Primitive):
    """Of the client, which hands over their other ends."""

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
    """Tell the server what to open; raises ConnectionError if it does not say that it has."""
    sock.sendall(" ".join(map(str, words)).encode())
    if not sock.recv(1):
        raise ConnectionError("the server has not opened what was made for it")


def handed_over(sock: socket.socket) -> list[str]:
    return sock.recv(4096).decode().split()

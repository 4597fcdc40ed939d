"""A bare echo in Python over each primitive of the system, and over files."""

from __future__ import annotations

import os
import select
import shutil
import socket
import tempfile
from contextlib import AbstractContextManager, closing
from pathlib import Path

from .exchange import Conversation, ExchangePeer, Framed, Handle
from .queues import PosixQueues, SysvQueues
from .ways import Pipes, Primitive, TcpSocket, UnixSocket, Way, hand_over, write_all


class Files(Primitive):
    """Two files that are appended to, in folders of their own, watched with inotify."""

    def server(self, sock: socket.socket) -> Way:
        folder = Path(sock.recv(4096).decode())
        spool = _Spool(folder / "up", folder / "down", sock)
        sock.send(b"x")
        return Way(spool.read, spool.write, spool.close)

    def client(self, sock: socket.socket) -> Way:
        folder = Path(tempfile.mkdtemp(prefix="files-", dir=Path(sock.getpeername()).parent))
        (folder / "up").mkdir()
        (folder / "down").mkdir()
        spool = _Spool(folder / "down", folder / "up", sock)
        hand_over(sock, folder)

        def close() -> None:
            spool.close()
            shutil.rmtree(folder, ignore_errors=True)

        return Way(spool.read, spool.write, close)


class _Spool:
    _LARGE = 4 << 20

    def __init__(self, rx: Path, tx: Path, sock: socket.socket) -> None:
        from localrpc._core.links import spool_bell

        self._sock = sock
        self._bell = spool_bell(str(rx), batches=False, interval_ms=0)
        flags = os.O_CREAT | os.O_CLOEXEC
        self._rx = os.open(rx / "bytes", flags | os.O_RDWR, 0o600)
        self._tx = os.open(tx / "bytes", flags | os.O_WRONLY | os.O_APPEND, 0o600)
        self._taken = 0
        self._poll = select.poll()
        for fd in (self._bell, sock.fileno()):
            self._poll.register(fd, select.POLLIN)

    def read(self, most: int) -> bytes:
        while not (data := os.read(self._rx, most)):
            # Read the inotify event before the file, so that data in between causes another event.
            if any(fd != self._bell for fd, _ in self._poll.poll()):
                return b""
            os.read(self._bell, 4096)
        self._taken += len(data)
        return data

    def write(self, data: bytes) -> None:
        if self._taken > self._LARGE:
            # All of it is read, and nothing follows before the answer has been sent.
            os.ftruncate(self._rx, 0)
            os.lseek(self._rx, 0, os.SEEK_SET)
            self._taken = 0
        write_all(self._tx, data)

    def close(self) -> None:
        for fd in (self._bell, self._rx, self._tx):
            if fd >= 0:
                os.close(fd)
        self._bell = self._rx = self._tx = -1
        self._sock.close()


class BarePeer(ExchangePeer):
    """An echo in Python over a primitive: a length, then the bytes."""

    def __init__(self, name: str, primitive: Primitive, what: str) -> None:
        self.name = name
        self.what = f"{what} in Python"
        self.module, self.package = primitive.module, primitive.package
        self._primitive = primitive

    def listen(self, directory: Path, kind: str, handle: Handle) -> AbstractContextManager[None]:
        def serve(way: Way) -> None:
            with closing(_framed(way)) as framed:
                framed.serve(handle)

        return self._primitive.listen(self.path(directory, kind), serve)

    def dial(self, directory: Path, kind: str) -> Conversation:
        return _framed(self._primitive.dial(self.path(directory, kind)))


def _framed(way: Way) -> Framed:
    return Framed(way.read, way.write, way.close)


BARE: tuple[BarePeer, ...] = (
    BarePeer("socket", UnixSocket(), "a bare Unix socket"),
    BarePeer("tcp-socket", TcpSocket(), "a bare TCP socket, within the machine,"),
    BarePeer("pipes", Pipes(), "two bare pipes"),
    BarePeer("queues", PosixQueues(), "two bare POSIX message queues"),
    BarePeer("sysv-queues", SysvQueues(), "two bare System V message queues"),
    BarePeer("files", Files(), "two bare files, watched with inotify,"),
)

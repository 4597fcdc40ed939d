"""What carries a greeting, and afterwards its link; one class for each kind of descriptor."""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import select
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from localrpc._core import links
from localrpc._core.links import Link
from localrpc.address import Address
from localrpc.errors import GreetingError
from localrpc.transports.targets import SPIN

if TYPE_CHECKING:
    import socket
else:
    # A client needs only the part in C: importing the rest takes as long as a first call.
    import _socket as socket

MAX_FDS = 3
_FDS_SPACE = socket.CMSG_SPACE((MAX_FDS + 1) * array.array("i").itemsize)


class Descriptors:
    """Descriptors that are closed unless they are taken."""

    def __init__(self) -> None:
        self._fds: list[int] = []

    def add(self, *fds: int) -> int:
        self._fds += fds
        return fds[0] if fds else -1

    def __len__(self) -> int:
        return len(self._fds)

    def take(self) -> list[int]:
        """Return all of them, for the caller to own."""
        fds, self._fds = self._fds, []
        return fds

    def take_last(self) -> int:
        """Return the one that came last, for the caller to own; -1 if there is none."""
        return self._fds.pop() if self._fds else -1

    def close(self) -> None:
        for fd in self.take():
            if fd >= 0:
                os.close(fd)

    def __enter__(self) -> Descriptors:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ByteChannel(ABC):
    """Bytes in both directions, in order; owns its descriptors until open_link()."""

    kind: str
    """Its name in ConnectionFacts.wakeup."""

    @abstractmethod
    def fileno(self) -> int:
        """Readable when receive() has something."""

    @abstractmethod
    def receive(self, size: int) -> tuple[bytes, list[int]]:
        """Return at most `size` bytes, none at the end, and descriptors, for the caller to own.

        Never blocks (BlockingIOError), and never takes more from the channel than
        one HELLO. ConnectionResetError is an end, too.
        """

    @abstractmethod
    def send(self, frame: bytes, fds: list[int]) -> None:
        """Send all of it into an empty channel. Raises OSError if that fails."""

    @abstractmethod
    def open_link(self, pidfd: int, address: Address) -> Link:
        """Return a link, which takes over `pidfd`, too, even if this raises OSError."""

    @abstractmethod
    def close(self) -> None:
        """Close it. Idempotent."""

    def forget(self) -> None:
        """Close in a forked child, without affecting what the parent shares."""
        self.close()

    def __enter__(self) -> ByteChannel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SocketChannel(ByteChannel):
    """A connected, non-blocking stream socket."""

    kind = "socket"

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def fileno(self) -> int:
        return self.sock.fileno()

    def receive(self, size: int) -> tuple[bytes, list[int]]:
        data, ancillary, flags, _ = self.sock.recvmsg(
            size, _FDS_SPACE, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        )
        fds = array.array("i")
        for level, kind, raw in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(raw[: len(raw) - len(raw) % fds.itemsize])
        if flags & socket.MSG_CTRUNC or len(fds) > MAX_FDS:
            for fd in fds:
                os.close(fd)
            raise GreetingError(f"its HELLO carries more than {MAX_FDS} descriptors")
        return data, fds.tolist()

    def send(self, frame: bytes, fds: list[int]) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            sent = self.sock.sendmsg([frame], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        check_whole(sent, frame)

    def open_link(self, pidfd: int, address: Address) -> Link:
        return links.open_stream(fd=self.sock.detach(), pidfd=pidfd, spin_us=SPIN.of(address))

    def close(self) -> None:
        self.sock.close()


class PipeChannel(ByteChannel):
    """Two pipes or FIFOs: what we read, what we write, and a reading end of the latter."""

    kind = "pipe"

    def __init__(self, rx: int, tx: int, keep: int) -> None:
        self._fds = Descriptors()
        self._fds.add(rx, tx, keep)
        self._rx, self._tx = rx, tx
        os.set_blocking(rx, False)
        os.set_blocking(tx, False)

    def fileno(self) -> int:
        return self._rx

    def receive(self, size: int) -> tuple[bytes, list[int]]:
        # Before its writer has come, a FIFO reads as if that had gone.
        poller = select.poll()
        poller.register(self._rx, select.POLLIN)
        if not poller.poll(0):
            raise BlockingIOError(errno.EAGAIN, "nothing has come yet")
        return os.read(self._rx, size), []

    def send(self, frame: bytes, fds: list[int]) -> None:
        try:
            sent = os.write(self._tx, frame)
        except BlockingIOError:
            sent = 0
        check_whole(sent, frame)

    def open_link(self, pidfd: int, address: Address) -> Link:
        rx, tx, keep = self._fds.take()
        self._rx = self._tx = -1
        return links.open_pipe(
            rx_fd=rx, tx_fd=tx, keep_fd=keep, pidfd=pidfd, spin_us=SPIN.of(address)
        )

    def close(self) -> None:
        self._rx = self._tx = -1
        self._fds.close()


def check_whole(sent: int, frame: bytes) -> None:
    """Raises OSError if not all of a HELLO was sent."""
    if sent != len(frame):
        raise OSError(errno.ENOBUFS, "there was room for only a part of the HELLO")


def grow_pipe(fd: int, size: int) -> int:
    """Make a pipe hold `size` bytes, or as many as this user may have; what it holds then.

    pipe(7): beyond pipe-user-pages-soft growing is EPERM, and a new pipe has 8 KiB.
    """
    while size > (holds := fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)):
        with contextlib.suppress(OSError):
            return fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)
        size //= 2
    return holds

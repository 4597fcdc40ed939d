"""Ways over message queues, which do not tell that the peer has gone."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

from .ways import How, Primitive, Way, hand_over, handed_over


class _Watch:
    """Calls `end` repeatedly once the peer has closed the socket, until this is closed.

    A queue does not tell that its peer has gone: a wait for it would never end.
    """

    def __init__(self, sock: socket.socket, end: Callable[[], object]) -> None:
        self._sock = sock
        self._end = end
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.recv(1)
        while not self._over.wait(0.01):
            self._end()

    def close(self) -> None:
        """Close it, which the peer notices. Idempotent."""
        self._over.set()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is not self._thread:
            self._thread.join(1)
        self._sock.close()


class PosixQueues(Primitive):
    """The client's queues; it removes their names once the server has opened them."""

    module = "posix_ipc"
    package = "'localrpc[mq]'"

    def server(self, sock: socket.socket) -> Way:
        import posix_ipc

        up, down = map(posix_ipc.MessageQueue, handed_over(sock))
        sock.send(b"x")
        return self._way(up, down, sock)

    def client(self, sock: socket.socket) -> Way:
        import posix_ipc

        token = os.urandom(8).hex()
        names = [f"/localrpc-bench-{token}-{end}" for end in ("up", "down")]
        try:
            # Two messages each: a user has room for few queues.
            up, down = (
                posix_ipc.MessageQueue(name, posix_ipc.O_CREX, mode=0o600, max_messages=2)
                for name in names
            )
            hand_over(sock, *names)
        except ConnectionError:
            raise
        except OSError:
            # posix_ipc has the text of another limit for this one.
            raise OSError(errno.ENOSPC, "no room for more queues: raise ulimit -q") from None
        finally:
            for name in names:
                with contextlib.suppress(posix_ipc.ExistentialError):
                    posix_ipc.unlink_message_queue(name)
        return self._way(down, up, sock)

    def _way(self, rx: Any, tx: Any, sock: socket.socket) -> Way:
        import posix_ipc

        largest = tx.max_message_size
        ends = [rx, tx]

        def write(data: bytes) -> None:
            for at in range(0, len(data), largest):
                tx.send(data[at : at + largest])

        def end() -> None:
            # The thread that waits here for a message, or for room.
            with contextlib.suppress(posix_ipc.BusyError):
                rx.send(b"", timeout=0)
            with contextlib.suppress(posix_ipc.BusyError):
                while True:
                    tx.receive(timeout=0)

        watch = _Watch(sock, end)

        def close() -> None:
            watch.close()
            while ends:
                ends.pop().close()

        def read(_: int) -> bytes:
            data: bytes = rx.receive()[0]
            return data

        return Way(read, write, close, How.MQUEUE, rx.mqd, tx.mqd)


class SysvQueues(Primitive):
    """The client's queues; the side that sees the other one go removes them."""

    def server(self, sock: socket.socket) -> Way:
        up, down = map(int, handed_over(sock))
        sock.send(b"x")
        return self._way(up, down, sock)

    def client(self, sock: socket.socket) -> Way:
        from localrpc._core import lib

        queues: list[int] = []
        try:
            for _ in range(2):
                queues.append(_checked(lib.lr_msgget(0, 1)))
            up, down = queues
            hand_over(sock, up, down)
        except BaseException:
            for queue in queues:
                lib.lr_msgctl_remove(queue)
            raise
        return self._way(down, up, sock)

    def _way(self, rx: int, tx: int, sock: socket.socket) -> Way:
        from localrpc._core import ffi, lib

        from . import _floor

        largest = lib.LR_SYSV_MAX
        room = ffi.new("char[]", largest)
        came = ffi.buffer(room)

        def read(_: int) -> bytes:
            # Interrupted: let Python's own handlers run, for Ctrl-C.
            while (size := lib.lr_msgrcv(rx, room, largest, 1)) == -errno.EINTR:
                pass
            data: bytes = came[: _checked(size)]
            return data

        def write(data: bytes) -> None:
            for at in range(0, len(data), largest):
                piece = data[at : at + largest]
                while (done := _floor.lib.lr_floor_msgsnd(tx, piece, len(piece))) == -errno.EINTR:
                    pass
                _checked(done)

        def remove() -> None:
            lib.lr_msgctl_remove(rx)
            lib.lr_msgctl_remove(tx)

        watch = _Watch(sock, remove)

        def close() -> None:
            remove()
            watch.close()

        return Way(read, write, close, How.SYSV, rx, tx)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result

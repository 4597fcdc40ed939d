"""A listener that receives its clients from this process."""

from __future__ import annotations

import os
import socket
from collections import deque

from localrpc import _locks
from localrpc.address import Address
from localrpc.options import Options
from localrpc.transports.base import Admission, Greeting, Listener
from localrpc.transports.byte_channels import SocketChannel
from localrpc.transports.forks import forget_after_fork
from localrpc.transports.handshake_server import ServerGreeting, ServerSide


class HandoverListener(Listener):
    """Takes connected sockets from any thread; they wait here as in a socket's backlog."""

    def __init__(
        self,
        address: Address,
        options: Options,
        admission: Admission,
        side: ServerSide[SocketChannel],
        *,
        activated: bool = False,
    ) -> None:
        self.address = address
        self.activated = activated
        self._options = options
        self._admission = admission
        self._side = side
        self._lock = _locks.Lock()
        self._waiting: deque[socket.socket] = deque()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        forget_after_fork(self)

    def fileno(self) -> int:
        return self._bell

    def hand_over(self, sock: socket.socket) -> bool:
        """Take `sock`, which is non-blocking. Once closed, return False and leave it to the
        caller."""
        with self._lock:
            if self._bell < 0:
                return False
            self._waiting.append(sock)
            os.eventfd_write(self._bell, 1)
            return True

    def accept(self) -> list[Greeting]:
        with self._lock:
            if not self._waiting:
                return []
            os.eventfd_read(self._bell)
            arrived, self._waiting = self._waiting, deque()
        return [
            ServerGreeting(
                SocketChannel(sock), self._side, self.address, self._options, self._admission
            )
            for sock in arrived
        ]

    def close(self) -> None:
        for greeting in self.accept():
            greeting.dismiss()
        with self._lock:
            self._close()

    def forget(self) -> None:
        # The thread that held the lock is not in this process.
        self._lock = _locks.Lock()
        self._close()

    def _close(self) -> None:
        while self._waiting:
            self._waiting.pop().close()
        bell, self._bell = self._bell, -1
        if bell >= 0:
            os.close(bell)

"""A peer made by hand: it greets as it should, and then writes what it likes."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from time import monotonic_ns

from localrpc._core import Io, lib
from localrpc._core.links import make_bell
from localrpc.options import parse_options
from localrpc.transports import Attempt, Connection, parse_target, transport_for
from localrpc.transports.byte_channels import SocketChannel
from localrpc.transports.handshake import make_hello
from localrpc.transports.memory import CONTROL_PAGE, create_ring
from localrpc.wire.greeting import Greeter, Role, hello_frame
from tests.peers.journal import PATIENCE
from tests.peers.scenes import await_that
from tests.places import connect

SIZE = 131072
TAIL, HEAD, EPOCH, WAKE = 0, 64, 128, 136
OPTIONS = parse_options(None)
SLOT = 1 << 32
"""A call id: the first generation of slot 0."""


def opening(number: int = 1, *, head: bytes = b"", message: bytes = b"") -> bytes:
    """An OPEN's payload."""
    return struct.pack("<IIq", number, len(head), -1) + head + message


class RawClient:
    """A client's end of a greeted link; frames of any kind, whole."""

    def __init__(self, target: str) -> None:
        address = parse_target(target)
        transport = transport_for(address.scheme)
        self.connection: Connection = transport.dialer(address, OPTIONS).dial(Attempt())
        self.io = Io()

    def send(self, kind: int, payload: bytes = b"", *, flags: int = 0, call: int = SLOT) -> int:
        """1 sent, 0 no room, LR_CLOSED."""
        raw = self.connection.link.raw
        return int(lib.lr_link_send(raw, kind, flags, call, payload, len(payload)))

    def name(self, method: str, number: int = 1) -> None:
        payload = struct.pack("<I", number) + method.encode()
        assert self.send(lib.LR_T_METHOD, payload, call=0) == 1

    def receive(self, patience: float = PATIENCE) -> int:
        """1 with the frame in io, or LR_TIMEOUT, LR_CLOSED."""
        until = int(monotonic_ns() + patience * 1e9)
        result = lib.LR_AGAIN
        while result == lib.LR_AGAIN:
            result = lib.lr_link_recv(self.connection.link.raw, self.io.raw, until)
        return int(result)

    def expect_end(self) -> None:
        """Wait until the server ends the connection; it may send frames before."""
        while (result := self.receive()) == 1:
            pass
        assert result == lib.LR_CLOSED, result

    def close(self) -> None:
        self.connection.close()


@contextmanager
def raw_client(target: str) -> Iterator[RawClient]:
    one = RawClient(target)
    try:
        yield one
    finally:
        one.close()


class RawSocket:
    """Return a socket after the handshake, and the memory offered over it if `ring`."""

    def __init__(self, target: str, *, ring: bool, bell: int | None = None) -> None:
        self.sock = connect(target)
        self.sock.settimeout(PATIENCE)
        self._fds: list[int] = []
        offered: list[int] = []
        if ring:
            bell = make_bell() if bell is None else bell
            offered = [bell, create_ring(SIZE), create_ring(SIZE)]
            self.bell = os.dup(offered[0])
            self._fds.append(self.bell)
            self.mine = mmap.mmap(offered[1], CONTROL_PAGE + SIZE)
            self.theirs = mmap.mmap(offered[2], CONTROL_PAGE + SIZE, prot=mmap.PROT_READ)
        channel = SocketChannel(self.sock)
        channel.send(hello_frame(make_hello(OPTIONS, ring_size=SIZE if ring else 0)), offered)
        for fd in offered:
            os.close(fd)
        greeter = Greeter(Role.CLIENT)
        while True:
            wait([self.sock], PATIENCE)
            data, fds = channel.receive(greeter.wanted)
            self._fds += fds
            if greeter.receive(data):
                break

    @property
    def their_bell(self) -> int:
        return self._fds[1]

    def put(self, at: int, value: int, size: int = 8) -> None:
        """One of the words of the ring's control page."""
        self.mine[at : at + size] = value.to_bytes(size, "little")

    def write(self, data: bytes, tail: int | None = None) -> None:
        """Into an empty ring, with a tail that may lie."""
        self.mine[CONTROL_PAGE : CONTROL_PAGE + len(data)] = data
        self.put(TAIL, -(-len(data) // 8) * 8 if tail is None else tail)
        self.ring()

    def ring(self) -> None:
        os.eventfd_read(self.their_bell)

    def await_frame(self) -> None:
        """Return the server's first one; no bell announces it."""
        await_that(lambda: any(self.theirs[TAIL : TAIL + 8]), "the server's first frame")

    def ended(self) -> bool:
        """Return True if the server closes the connection."""
        try:
            while data := self.sock.recv(65536):
                assert data
        except ConnectionResetError:
            pass
        return True

    def close(self) -> None:
        self.sock.close()
        for fd in self._fds:
            os.close(fd)
        for memory in ("mine", "theirs"):
            if memory in vars(self):
                getattr(self, memory).close()


@contextmanager
def raw_socket(target: str, *, ring: bool = False, bell: int | None = None) -> Iterator[RawSocket]:
    one = RawSocket(target, ring=ring, bell=bell)
    try:
        yield one
    finally:
        one.close()


def header(length: int, kind: int, flags: int = 0, call: int = SLOT) -> bytes:
    return struct.pack("<IBBHQ", length, kind, flags, 0, call)

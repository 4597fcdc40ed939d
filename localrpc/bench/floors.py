"""Floors: what a call cannot be faster than. C round trips over each primitive, a copy, protobuf.

The round trips run in C, over the links that localrpc itself uses but without
its engine, calls or Python: only the clock is read beside.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from localrpc.address import parse_target

from . import bench_pb2
from .drivers import Call, Threads
from .peer import TIMEOUT, Client, Dress, Peer, UnsupportedScenario, checked, message, noise
from .rpc import LocalrpcPeer

_LARGEST = 64 * 1024
"""What a link takes in one frame that is not cut."""
_ROOM = 65536


class LinkFloor(Peer):
    """A bare link of one of our transports; each client one thread."""

    def __init__(self, primitive: str, scheme: str, what: str) -> None:
        self.name = f"floor-{primitive}"
        self.what = f"C round trips over {what}"
        self._scheme = scheme

    def _address(self, directory: Path) -> Any:
        return parse_target(LocalrpcPeer(self._scheme).target(directory, self.name))

    @contextmanager
    def serve(self, directory: Path) -> Iterator[None]:
        from localrpc.options import parse_options
        from localrpc.transports import transport_for

        address = self._address(directory)
        listener = transport_for(address.scheme).listen(address, parse_options(()))

        def accept() -> None:
            with contextlib.suppress(OSError, ValueError):
                while True:
                    wait([listener.fileno()])
                    for greeting in listener.accept():
                        threading.Thread(target=_serve, args=(greeting,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield
        finally:
            listener.close()

    def connect(self, directory: Path) -> Client:
        from localrpc.options import parse_options
        from localrpc.transports import transport_for

        address = self._address(directory)
        dial = transport_for(address.scheme).dial
        return LinkClient(dial(address, parse_options(()), None))


def _serve(greeting: Any) -> None:
    from localrpc._core import Io, lib

    while (connection := greeting.advance()) is None:
        if not wait([greeting.fileno()], TIMEOUT):
            greeting.close()
            return
    io = Io()
    with contextlib.closing(connection):
        while lib.lr_floor_serve(connection.link.raw, io.raw) == lib.LR_AGAIN:
            pass


class LinkClient(Client):
    driver: LinkDriver

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.driver = LinkDriver(connection.link.raw)

    def raw(self, size: int) -> Call:
        if size > _LARGEST:
            raise UnsupportedScenario
        payload = noise(size)
        call = partial(self.driver.exchange, payload)
        return checked(self.driver, call, payload)

    def close(self) -> None:
        self._connection.close()


class LinkDriver(Threads):
    """Makes calls one after the other without coming back to Python."""

    def __init__(self, link: Any) -> None:
        from localrpc._core import Io, ffi, lib

        self._lib = lib
        self._link = link
        self._io = Io()
        self._taken = ffi.new("int64_t[]", _ROOM)

    def exchange(self, payload: bytes) -> bytes:
        self._ping(payload, 1, 1)
        return self._io.buf[: self._io.raw.size]

    def repeat(self, call: Call, seconds: float) -> list[int]:
        (payload,) = call.args  # type: ignore[attr-defined]
        left = int(seconds * 1e9)
        taken: list[int] = []
        while left > 0:
            count = self._ping(payload, left, _ROOM)
            some = self._taken[0:count]
            taken.extend(some)
            left -= sum(some)
        return taken

    def together(self, *_: Any) -> list[list[int]]:
        # A link is one thread's.
        raise UnsupportedScenario

    def _ping(self, payload: bytes, nanoseconds: int, room: int) -> int:
        count: int = self._lib.lr_floor_ping(
            self._link, self._io.raw, payload, len(payload), nanoseconds, self._taken, room
        )
        if count < 0:
            raise ConnectionError(f"the link failed: {count}")
        return count


class LocalFloor(Peer):
    """What the client does by itself; its server idles."""

    def __init__(self, name: str, what: str, client: Callable[[], Client]) -> None:
        self.name = name
        self.what = what
        self._client = client

    @contextmanager
    def serve(self, directory: Path) -> Iterator[None]:
        yield

    def connect(self, directory: Path) -> Client:
        return self._client()


class CopyClient(Client):
    """One copy in memory; a call's bytes are copied there and back, so twice."""

    def raw(self, size: int) -> Call:
        source = noise(size)
        there, back = memoryview(bytearray(size)), memoryview(bytearray(size))

        def call() -> object:
            there[:] = source
            back[:] = there
            return back

        return checked(self.driver, call, source)

    def close(self) -> None:
        return None


class ProtobufClient(Client):
    """What protobuf does for a call: two messages made into bytes, and parsed again."""

    def unary(self, size: int, dress: Dress) -> Call:
        if dress is not Dress.PLAIN:
            raise UnsupportedScenario
        request = message(size)
        parse = bench_pb2.Echo.FromString

        def call() -> object:
            return parse(parse(request.SerializeToString()).SerializeToString())

        return checked(self.driver, call, request)

    def close(self) -> None:
        return None


FLOORS: tuple[Peer, ...] = (
    LinkFloor("ring", "shm", "rings in shared memory, with spinning"),
    LinkFloor("socket", "unix", "a Unix socket"),
    LinkFloor("pipe", "pipe", "two pipes"),
    LinkFloor("mq", "mq", "two POSIX queues"),
    LinkFloor("sysvmq", "sysvmq", "two System V queues"),
    LinkFloor("tcp", "tcp", "TCP, within the machine"),
    LocalFloor("floor-copy", "two copies in memory (memcpy), from Python", CopyClient),
    LocalFloor("floor-protobuf", "protobuf alone, of a call's two messages", ProtobufClient),
)

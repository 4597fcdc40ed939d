"""Lower bounds for the time of a call: C round trips over each primitive, a copy, protobuf.

Over the system's primitives they are the blocking calls of a plain program, one write and one read
for a small message on each side. With both sides pinned to one core of an idle machine (`localrpc
bench --placement one-core --scenario raw --peer floor-pipe`) they take what such a loop in C takes,
within a tenth; for pipes, `taskset -c 1 perf bench sched pipe` is one. Over the ring, which is
localrpc's own, they are bare links. There is no engine, no call and no Python; only the clock is
read as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from . import bench_pb2
from .drivers import Call, Threads
from .peer import Client, Dress, Peer, UnsupportedScenario, checked, message, noise
from .queues import PosixQueues, SysvQueues
from .rings import dialled, listening
from .ways import Pipes, Primitive, TcpSocket, UnixSocket, Way

Ping = Callable[[bytes, Any, int, Any, int], int]
"""Make round trips of bytes for some nanoseconds, the last answer into a buffer. Store what each
took in another one, which has room for so many. Return their number, or a negative result."""

_ROOM = 65536


class PlainFloor(Peer):
    """A primitive of the system; each client is one thread."""

    def __init__(self, name: str, primitive: Primitive, what: str) -> None:
        self.name = f"floor-{name}"
        self.what = f"C round trips over {what}"
        self.module, self.package = primitive.module, primitive.package
        self._primitive = primitive

    def serve(self, directory: Path) -> AbstractContextManager[None]:
        return self._primitive.listen(self._path(directory), _echo)

    def connect(self, directory: Path) -> Client:
        from ._floor import lib

        way = self._primitive.dial(self._path(directory))
        ping = partial(lib.lr_floor_ping, _how(way), way.rx, way.tx)

        def sized(data: bytes, back: Any, nanoseconds: int, taken: Any, room: int) -> int:
            return ping(data, back, len(data), nanoseconds, taken, room)

        return FloorClient(sized, way.close)

    def _path(self, directory: Path) -> str:
        return str(directory / f"{self.name}.sock")


def _how(way: Way) -> int:
    from ._floor import lib

    assert way.how is not None
    how: int = getattr(lib, way.how.value)
    return how


def _echo(way: Way) -> None:
    from ._floor import lib

    with closing(way):
        lib.lr_floor_echo(_how(way), way.rx, way.tx)


class RingFloor(Peer):
    """Bare links over rings in shared memory; each client is one thread."""

    name = "floor-ring"
    what = "C round trips over rings in shared memory, with spinning"

    def serve(self, directory: Path) -> AbstractContextManager[None]:
        return listening(directory, self.name, _echo_frames)

    def connect(self, directory: Path) -> Client:
        from localrpc._core import Io

        from ._floor import lib

        connection = dialled(directory, self.name)
        link, io = connection.link.raw, Io()

        def ping(data: bytes, back: Any, nanoseconds: int, taken: Any, room: int) -> int:
            return lib.lr_link_ping(link, io.raw, data, back, len(data), nanoseconds, taken, room)

        return FloorClient(ping, connection.close)


def _echo_frames(connection: Any) -> None:
    from localrpc._core import Io

    from ._floor import lib

    io = Io()
    with closing(connection):
        lib.lr_link_echo(connection.link.raw, io.raw)


class FloorClient(Client):
    driver: FloorDriver

    def __init__(self, ping: Ping, close: Callable[[], object]) -> None:
        self._close = close
        self.driver = FloorDriver(ping)

    def raw(self, size: int) -> Call:
        payload = noise(size)
        call = partial(self.driver.exchange, payload)
        return checked(self.driver, call, payload)

    def close(self) -> None:
        self._close()


class FloorDriver(Threads):
    """Makes calls one after the other without returning to Python."""

    def __init__(self, ping: Ping) -> None:
        from localrpc._core import ffi

        self._ffi = ffi
        self._ping = ping
        self._taken = ffi.new("int64_t[]", _ROOM)

    def exchange(self, payload: bytes) -> bytes:
        """As repeat(). Raises ConnectionError once the server has gone."""
        back = self._ffi.new("char[]", len(payload))
        self._pings(payload, back, 1, 1)
        return bytes(self._ffi.buffer(back))

    def repeat(self, call: Call, seconds: float) -> list[int]:
        (payload,) = call.args  # type: ignore[attr-defined]
        back = self._ffi.new("char[]", len(payload))
        left = int(seconds * 1e9)
        taken: list[int] = []
        while left > 0:
            count = self._pings(payload, back, left, _ROOM)
            some = self._taken[0:count]
            taken.extend(some)
            left -= sum(some)
        return taken

    def together(self, *_: Any) -> list[list[int]]:
        # The connection belongs to one thread.
        raise UnsupportedScenario

    def _pings(self, payload: bytes, back: Any, nanoseconds: int, room: int) -> int:
        count = self._ping(payload, back, nanoseconds, self._taken, room)
        if count < 0:
            raise ConnectionError(f"the server has gone, or the link failed: {count}")
        return count


class LocalFloor(Peer):
    """What the client does alone; its server idles."""

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
    """One copy in memory; a call's bytes are copied there and back, so two."""

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
    """Protobuf's part of a call: two messages are serialized, and parsed again."""

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
    RingFloor(),
    PlainFloor("socket", UnixSocket(), "a Unix socket"),
    PlainFloor("pipe", Pipes(), "two pipes"),
    PlainFloor("mq", PosixQueues(), "two POSIX queues"),
    PlainFloor("sysvmq", SysvQueues(), "two System V queues"),
    PlainFloor("tcp", TcpSocket(), "TCP, within the machine"),
    LocalFloor("floor-copy", "two copies in memory (memcpy), from Python", CopyClient),
    LocalFloor("floor-protobuf", "protobuf alone, of a call's two messages", ProtobufClient),
)

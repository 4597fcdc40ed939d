"""A peer: one way to make calls, in two halves. A new one is one small class."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from . import bench_pb2
from .drivers import Call, Driver, Threads

TIMEOUT = 10.0


class Dress(Enum):
    """The extras of a unary call."""

    PLAIN = "plain"
    TIMEOUT = "timeout="
    FULL = "timeout=, four metadata pairs each way, one interceptor a side"


class UnsupportedScenario(Exception):
    """This peer has nothing that the scenario could measure."""


class Client(ABC):
    """The calling side; sizes are those of the encoded message. Closed by `close`.

    `unary`, `raw` and `chat` return a call for `driver` to make, after making it once and
    checking its answer.
    """

    driver: Driver = Threads()
    again: Callable[[], Client]
    """Open another client of the same server; set by the code that connects this one."""
    neighbour: Callable[[int], AbstractContextManager[None]]
    """Start a client in another process that echoes raw messages of so many bytes until it is
    left; set by the code that connects this one. Raises UnsupportedScenario."""

    def unary(self, size: int, dress: Dress) -> Call:
        raise UnsupportedScenario

    def raw(self, size: int) -> Call:
        """As `unary`, for bytes that are not serialized."""
        raise UnsupportedScenario

    def program(self, size: int) -> Call:
        """Starts Python with a program that makes one such call as `unary` makes, and ends."""
        raise UnsupportedScenario

    def chat(self, size: int) -> AbstractContextManager[Call]:
        """Exchange one message each way on one stream, which ends on leaving."""
        raise UnsupportedScenario

    def download(self, size: int) -> AbstractContextManager[Any]:
        """Open an endless stream of messages for `driver` to drain; it ends on leaving."""
        raise UnsupportedScenario

    def upload(self, size: int, more: Callable[[], bool]) -> int:
        """Send messages while `more()`, called now and then, is true; return how many arrived."""
        raise UnsupportedScenario

    @abstractmethod
    def close(self) -> None: ...


class Peer(ABC):
    """One way to make calls. Its two halves run in different processes."""

    name: str
    what: str
    """A short description."""
    module: str = ""
    """A module that it imports and localrpc does not need."""
    package: str = ""
    """The name of its package for pip."""
    has_server = True
    """True if we start its server."""

    @property
    def missing(self) -> str | None:
        """Why it cannot be used here, and what to do; None if it can."""
        if self.module and find_spec(self.module) is None:
            return f"not installed: pip install {self.package}"
        return None

    @abstractmethod
    def serve(self, directory: Path) -> AbstractContextManager[None]:
        """Return a running server, which keeps what is needed to find it in `directory`."""

    @abstractmethod
    def connect(self, directory: Path) -> Client:
        """Return a client of the server that was given the same directory."""


def message(size: int) -> bench_pb2.Echo:
    """Return an Echo that encodes to `size` bytes without a pattern; `size` is at least 2."""
    header = bench_pb2.Echo(payload=bytes(size)).ByteSize() - size
    return bench_pb2.Echo(payload=noise(size - header))


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def checked(driver: Driver, call: Call, expected: object) -> Call:
    if driver.once(call) != expected:
        raise RuntimeError("the answer differs from the request")
    return call

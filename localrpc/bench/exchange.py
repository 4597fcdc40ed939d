"""Peers without services: bytes in, bytes back."""

from __future__ import annotations

import contextlib
import struct
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Client as dial_connection
from multiprocessing.connection import Listener
from pathlib import Path
from typing import Any

from . import bench_pb2
from .drivers import Call
from .peer import Client, Dress, Peer, UnsupportedScenario, checked, message, noise

Handle = Callable[[bytes], bytes]

_SIZE = struct.Struct("=I")
_FIRST = 64 * 1024
"""The size of the first read, before the size of a message is known. Not larger: the kernel
allocates 128 KiB and more anew each time, which costs more than a small message does."""
_MORE = 256 * 1024


class Conversation(ABC):
    """One thread's own way to the server."""

    @abstractmethod
    def exchange(self, data: bytes) -> bytes: ...

    @abstractmethod
    def close(self) -> None: ...

    def __del__(self) -> None:
        # A thread that ends leaves its conversation behind.
        with contextlib.suppress(Exception):
            self.close()


class ExchangePeer(Peer):
    """`kind` is "raw" for plain bytes, "message" for a protobuf that the server parses."""

    @abstractmethod
    def listen(
        self, directory: Path, kind: str, handle: Handle
    ) -> AbstractContextManager[None]: ...

    @abstractmethod
    def dial(self, directory: Path, kind: str) -> Conversation: ...

    @contextmanager
    def serve(self, directory: Path) -> Iterator[None]:
        with ExitStack() as stack:
            for kind, handle in (("raw", _same), ("message", _parsed)):
                stack.enter_context(self.listen(directory, kind, handle))
            yield

    def connect(self, directory: Path) -> Client:
        return ExchangeClient(partial(self.dial, directory))

    def path(self, directory: Path, kind: str) -> str:
        return str(directory / f"{self.name}-{kind}.sock")


def _same(data: bytes) -> bytes:
    return data


def _parsed(data: bytes) -> bytes:
    return bench_pb2.Echo.FromString(data).SerializeToString()


class ExchangeClient(Client):
    """Gives each calling thread a conversation of its own, because they cannot share one."""

    def __init__(self, dial: Callable[[str], Conversation]) -> None:
        self._dial = dial
        self._own = threading.local()

    def _conversation(self, kind: str) -> Conversation:
        conversation: Conversation | None = getattr(self._own, kind, None)
        if conversation is None:
            conversation = self._dial(kind)
            setattr(self._own, kind, conversation)
        return conversation

    def raw(self, size: int) -> Call:
        payload = noise(size)

        def call() -> object:
            return self._conversation("raw").exchange(payload)

        return checked(self.driver, call, payload)

    def unary(self, size: int, dress: Dress) -> Call:
        if dress is not Dress.PLAIN:
            raise UnsupportedScenario
        request = message(size)

        def call() -> object:
            answer = self._conversation("message").exchange(request.SerializeToString())
            return bench_pb2.Echo.FromString(answer)

        return checked(self.driver, call, request)

    def close(self) -> None:
        for conversation in vars(self._own).values():
            conversation.close()


class Framed(Conversation):
    """Messages on a stream of bytes: a length, then the bytes."""

    def __init__(
        self,
        read: Callable[[int], bytes],
        write: Callable[[bytes], object],
        close: Callable[[], object],
    ) -> None:
        self._read = read
        self._write = write
        self._close = close

    def exchange(self, data: bytes) -> bytes:
        self._write(_SIZE.pack(len(data)) + data)
        return self.receive()

    def receive(self) -> bytes:
        """Read a message; nothing follows it before it is answered. Raises EOFError."""
        data = self._more(_FIRST)
        while len(data) < _SIZE.size:
            data += self._more(_FIRST)
        (size,) = _SIZE.unpack_from(data)
        if len(data) == _SIZE.size + size:
            return data[_SIZE.size :]
        pieces = [data[_SIZE.size :]]
        left = size - len(pieces[0])
        while left > 0:
            pieces.append(self._more(min(left, _MORE)))
            left -= len(pieces[-1])
        return b"".join(pieces)

    def _more(self, most: int) -> bytes:
        data = self._read(most)
        if not data:
            raise EOFError
        return data

    def serve(self, handle: Handle) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                answer = handle(self.receive())
                self._write(_SIZE.pack(len(answer)) + answer)

    def close(self) -> None:
        self._close()


class Messages(Conversation):
    """Messages on a medium that preserves their boundaries."""

    def __init__(
        self,
        send: Callable[[bytes], object],
        receive: Callable[[], bytes],
        close: Callable[[], object],
    ) -> None:
        self._send = send
        self._receive = receive
        self._close = close

    def exchange(self, data: bytes) -> bytes:
        self._send(data)
        return self._receive()

    def serve(self, handle: Handle, *ends: type[BaseException]) -> None:
        """Serve until one of `ends` is raised, or the client has gone; then close."""
        with contextlib.suppress(EOFError, *ends), contextlib.closing(self):
            while True:
                self._send(handle(self._receive()))

    def close(self) -> None:
        self._close()


@contextmanager
def beside(serve: Callable[[], object], end: Callable[[], object]) -> Iterator[None]:
    """Run `serve` on a thread of its own, which returns after `end`."""
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        end()
        thread.join()


class MultiprocessingPeer(ExchangePeer):
    name = "multiprocessing"
    what = "multiprocessing.connection over a Unix socket"

    @contextmanager
    def listen(self, directory: Path, kind: str, handle: Handle) -> Iterator[None]:
        listener = Listener(self.path(directory, kind), "AF_UNIX", backlog=128)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    conversation = _connected(listener.accept())
                    threading.Thread(
                        target=conversation.serve, args=(handle, OSError), daemon=True
                    ).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield
        finally:
            listener.close()

    def dial(self, directory: Path, kind: str) -> Conversation:
        return _connected(dial_connection(self.path(directory, kind), "AF_UNIX"))


def _connected(connection: Any) -> Messages:
    return Messages(connection.send_bytes, connection.recv_bytes, connection.close)

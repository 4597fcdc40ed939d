"""localrpc's rings in shared memory, bare: an echo in Python over them, and how to connect.

Their sockets signal the end of a peer, and their bells wake sleepers, but there is no engine: no
calls, no flow control, one thread.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from localrpc.transports import parse_target

from .exchange import Conversation, ExchangePeer, Handle, Messages
from .peer import TIMEOUT
from .rpc import LocalrpcPeer


@contextmanager
def listening(directory: Path, name: str, serve: Callable[[Any], object]) -> Iterator[None]:
    """Run `serve`, which owns the connection, on a thread for each client."""
    from localrpc.options import parse_options
    from localrpc.transports import transport_for

    address = _address(directory, name)
    listener = transport_for(address.scheme).listen(address, parse_options(()))

    def greet(greeting: Any) -> None:
        while (connection := greeting.advance()) is None:
            if not wait([greeting.fileno()], TIMEOUT):
                greeting.close()
                return
        serve(connection)

    def accept() -> None:
        with contextlib.suppress(OSError, ValueError):
            while True:
                wait([listener.fileno()])
                for greeting in listener.accept():
                    threading.Thread(target=greet, args=(greeting,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield
    finally:
        listener.close()


def dialled(directory: Path, name: str) -> Any:
    """Connect to the process that is listening() there."""
    from localrpc.options import parse_options
    from localrpc.transports import Attempt, transport_for

    address = _address(directory, name)
    return transport_for(address.scheme).dialer(address, parse_options(())).dial(Attempt())


def _address(directory: Path, name: str) -> Any:
    return parse_target(LocalrpcPeer("shm").target(directory, name))


class RingPeer(ExchangePeer):
    name = "ring"
    what = "bare rings in shared memory, with spinning, from Python"

    def listen(self, directory: Path, kind: str, handle: Handle) -> AbstractContextManager[None]:
        def serve(connection: Any) -> None:
            _messages(connection).serve(handle, ConnectionError)

        return listening(directory, f"{self.name}-{kind}", serve)

    def dial(self, directory: Path, kind: str) -> Conversation:
        return _messages(dialled(directory, f"{self.name}-{kind}"))


def _messages(connection: Any) -> Messages:
    from localrpc._core import Io, lib

    from . import _floor

    link = connection.link.raw
    io = Io()
    raw, buf = io.raw, io.buf

    def send(data: bytes) -> None:
        if (result := _floor.lib.lr_link_put(link, data, len(data))) != 1:
            raise ConnectionError(f"the link failed: {result}")

    def frame() -> bytes:
        # Interrupted: let Python's own handlers run, for Ctrl-C.
        while (result := _floor.lib.lr_link_await(link, raw)) == lib.LR_AGAIN:
            pass
        if result != 1:
            raise ConnectionError(f"the link failed: {result}")
        return buf[: raw.size]

    def receive() -> bytes:
        data = frame()
        left = raw.call - len(data)
        if not left:
            return data
        pieces = [data]
        while left > 0:
            pieces.append(frame())
            left -= len(pieces[-1])
        return b"".join(pieces)

    return Messages(send, receive, connection.close)

"""The links that the conformance suite runs over; a new transport adds a line."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

from localrpc._core import Io, lib
from localrpc.options import Options, parse_options
from localrpc.transports import (
    Attempt,
    Connection,
    Greeting,
    Listener,
    parse_target,
    scheme_for,
    transport_for,
)
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0


class Kind(NamedTuple):
    """A target, with {tmp} for a folder and {port}, and the options that both sides use."""

    target: str
    options: tuple[tuple[str, Any], ...] = ()
    wakeup: str = "eventfd"
    memory: str = "memfd"

    def at(self, folder: Path | str) -> str:
        """Return a target without a server."""
        port = free_port() if "{port}" in self.target else 0
        return self.target.format(tmp=folder, port=port)


KINDS = {
    "shm-eventfd": Kind("shm:{tmp}/link"),
    "shm-signal": Kind("shm:{tmp}/link?wakeup=signal", wakeup="signal"),
    "shm-futex": Kind("shm:{tmp}/link?wakeup=futex", wakeup="futex"),
    "shm-spin": Kind("shm:{tmp}/link?wakeup=spin", wakeup="spin"),
    "shm-posix": Kind("shm:{tmp}/link?memory=posix", memory="posix"),
    "shm-sysv": Kind("shm:{tmp}/link?memory=sysv", memory="sysv"),
    "shm-small": Kind("shm:{tmp}/link?ring=128k"),
    "shm-nospin": Kind("shm:{tmp}/link?spin=off"),
    "shm-on-socket": Kind("shm:{tmp}/link", (("localrpc.shared_memory", 0),), "socket"),
    "unix": Kind("unix:{tmp}/link", wakeup="socket"),
    "unix-abstract": Kind("unix-abstract:{tmp}/link", wakeup="socket"),
    "pipe": Kind("pipe:{tmp}/link", wakeup="pipe"),
    "mq": Kind("mq:link", wakeup="mqueue"),
    "sysvmq": Kind("sysvmq:link", wakeup="sysvmq"),
    "file": Kind("file:{tmp}/link", wakeup="inotify"),
    "file-rename": Kind("file:{tmp}/link?write=rename", wakeup="inotify"),
    "file-poll": Kind("file:{tmp}/link?watch=poll&interval=1", wakeup="poll"),
    "tcp": Kind("tcp:127.0.0.1:{port}", wakeup="socket"),
    "inproc": Kind("inproc:{tmp}/link", wakeup="socket"),
}
TWO_PROCESSES = [
    name
    for name, kind in KINDS.items()
    if scheme_for(kind.target.partition(":")[0]).connects_processes
]
"""The kinds whose client is a separate process."""


class Frame(NamedTuple):
    type: int
    flags: int
    call: int
    payload: bytes


@dataclass
class End:
    """One end of a link, with the buffer that a receiver needs."""

    connection: Connection
    io: Io = field(default_factory=Io)
    peer: End | None = None
    """The other end, if it is in this process: it sends the rest of what it has begun."""
    sending: threading.Lock = field(default_factory=threading.Lock)
    """Bare links have no thread, so the receiver makes the other end flush."""
    closed: bool = False

    def flush(self) -> bool:
        """Return True if all that was sent is out."""
        with self.sending:
            return self.closed or bool(lib.lr_link_flush(self.connection.link.raw))

    def try_send(self, frame: Frame) -> int:
        """1 sent, 0 no room, or negative."""
        with self.sending:
            return int(
                lib.lr_link_send(
                    self.connection.link.raw,
                    frame.type,
                    frame.flags,
                    frame.call,
                    frame.payload,
                    len(frame.payload),
                )
            )

    def receive(self, patience: float | None = PATIENCE) -> Frame | int:
        """The next frame, or a negative result; None waits forever."""
        until = 0 if patience is None else time.monotonic_ns() + int(patience * 1e9)
        while True:
            peer = self.peer
            held_back = peer is not None and not peer.flush()
            now = time.monotonic_ns()
            deadline = now if held_back and (not until or now < until) else until
            result = lib.lr_link_recv(self.connection.link.raw, self.io.raw, deadline)
            if result != lib.LR_AGAIN and not (result == lib.LR_TIMEOUT and deadline != until):
                break
        raw = self.io.raw
        if result < 0:
            return int(result)
        return Frame(raw.kind, raw.flags, raw.call, self.io.buf[: raw.size])

    def expect(self, frame: Frame) -> None:
        """`frame` comes next; DATA may come cut."""
        got = self.receive()
        assert isinstance(got, Frame), got
        while got.type == lib.LR_T_DATA and len(got.payload) < len(frame.payload):
            more = self.receive()
            assert isinstance(more, Frame), more
            assert more.type == lib.LR_T_DATA
            got = got._replace(payload=got.payload + more.payload)
        assert got == frame

    def hang_up(self) -> None:
        """Say that this is the end, and keep what the link is made of."""
        with self.sending:
            lib.lr_link_hang_up(self.connection.link.raw)

    def unseen(self) -> bool:
        """Return True if the peer cannot have read the last message."""
        return bool(lib.lr_link_unseen(self.connection.link.raw))

    def close(self) -> None:
        if self.peer is not None:
            self.peer.peer = None
        with self.sending:
            self.closed = True
            self.connection.close()


def _readable(waited_for: Listener | Greeting) -> bool:
    return bool(wait([waited_for.fileno()], PATIENCE))


def _greet(listener: Listener) -> Connection:
    while not (greetings := listener.accept()):
        assert _readable(listener)
    (greeting,) = greetings
    while (connection := greeting.advance()) is None:
        _readable(greeting)
    return connection


@contextmanager
def pair(kind: Kind, folder: Path) -> Iterator[tuple[End, End]]:
    """Both ends in this process: the client's, the server's."""
    address = parse_target(kind.at(folder))
    options: Options = parse_options(kind.options)
    transport = transport_for(address.scheme)
    listener = transport.listen(address, options)
    with ThreadPoolExecutor(1) as pool:
        greeted = pool.submit(_greet, listener)
        client = End(transport.dialer(address, options).dial(Attempt()))
        server = End(greeted.result())
    client.peer, server.peer = server, client
    try:
        facts = client.connection.facts
        assert facts.wakeup == kind.wakeup
        assert facts.memory == (kind.memory if facts.ring_size else "")
        assert client.connection.facts == server.connection.facts
        yield client, server
    finally:
        client.close()
        server.close()
        listener.close()


CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.links.kinds import KINDS, End, Frame
from localrpc.transports import parse_target
from localrpc.options import parse_options
from localrpc.transports import Attempt, transport_for
kind = KINDS[sys.argv[2]]
address = parse_target(sys.argv[3])
dialer = transport_for(address.scheme).dialer(address, parse_options(kind.options))
end = End(dialer.dial(Attempt()))
exec(sys.argv[4])
"""


@contextmanager
def child(name: str, folder: Path, script: str) -> Iterator[tuple[subprocess.Popen[str], End]]:
    """A client in a separate process, which runs `script` on its `end`; our end of the link."""
    kind = KINDS[name]
    address = parse_target(kind.at(folder))
    listener = transport_for(address.scheme).listen(address, parse_options(kind.options))
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(ROOT), name, str(address), script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
    )
    try:
        end = End(_greet(listener))
        try:
            yield process, end
        finally:
            end.close()
    finally:
        listener.close()
        process.kill()
        process.communicate()

"""Foreign peers at places that are not sockets, with the interface of a socket for the tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any, NamedTuple, Protocol

import posix_ipc

from localrpc._core import ffi, lib
from localrpc._core.links import spool_bell
from localrpc.address import Address
from localrpc.options import Options
from localrpc.transports import inproc, mq, pipe, records, spool, sysvmq
from localrpc.transports.connect_requests import CONNECT_REQUEST_SIZE, ConnectRequestParser
from localrpc.transports.handshake_server import ServerGreeting
from tests.peers.journal import PATIENCE


class Kind(Protocol):
    def visit(self, address: Address) -> Any: ...

    def occupy(self, address: Address) -> Any: ...


class Writer(NamedTuple):
    """A descriptor to write to."""

    fd: int

    def sendall(self, data: bytes) -> None:
        os.write(self.fd, data)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


class FifoPlace:
    """A FIFO whose reader is not a server."""

    def __init__(self, address: Address) -> None:
        self._path = address.body
        os.mkfifo(self._path, 0o600)
        self._fd = os.open(self._path, os.O_RDWR)

    def accept(self) -> tuple[Writer, None]:
        assert wait([self._fd], PATIENCE)
        (token,) = ConnectRequestParser().feed(os.read(self._fd, CONNECT_REQUEST_SIZE))
        return Writer(os.open(pipe.ends(self._path, token).down, os.O_WRONLY)), None

    def __enter__(self) -> FifoPlace:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)


class _Fifo:
    def visit(self, address: Address) -> Writer:
        return Writer(os.open(address.body, os.O_WRONLY))

    def occupy(self, address: Address) -> FifoPlace:
        return FifoPlace(address)


class InprocPlace:
    """A listener of this process that is not a server."""

    def __init__(self, address: Address) -> None:
        self._listener = inproc.InprocTransport().listen(address, Options())

    def accept(self) -> tuple[socket.socket, None]:
        assert wait([self._listener.fileno()], PATIENCE)
        (greeting,) = self._listener.accept()
        assert isinstance(greeting, ServerGreeting)
        return greeting.channel.sock, None

    def __enter__(self) -> InprocPlace:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()


class _Inproc:
    def visit(self, address: Address) -> socket.socket:
        sock = inproc.connect(address)
        sock.setblocking(True)
        return sock

    def occupy(self, address: Address) -> InprocPlace:
        return InprocPlace(address)


class SpoolVisitor:
    """A client's folder in a spool, made by the test: what it sends is in up/0."""

    def __init__(self, address: Address) -> None:
        self.folder = os.path.join(address.body, os.urandom(8).hex())
        os.mkdir(self.folder, 0o700)
        for name in ("up", "down"):
            os.mkdir(f"{self.folder}/{name}", 0o700)
        own = spool.Side.own(address)
        self.record = records.make(f"{self.folder}/client", *own.lines())
        self._fd = os.open(f"{self.folder}/up/0", _FRESH, 0o600)
        os.close(os.open(f"{self.folder}/knock", _FRESH, 0o600))
        os.rename(f"{self.folder}/knock", f"{self.folder}.knock")

    def sendall(self, data: bytes) -> None:
        os.write(self._fd, data)

    def __enter__(self) -> SpoolVisitor:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
        self.record.close()


class SpoolWriter:
    """What answers at a spool: down/0, and an end."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._fd = os.open(f"{folder}/down/0", _FRESH, 0o600)

    def sendall(self, data: bytes) -> None:
        os.write(self._fd, data)

    def __enter__(self) -> SpoolWriter:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
        with contextlib.suppress(FileNotFoundError):  # its client has gone already
            os.close(os.open(f"{self._folder}/server", _FRESH, 0o600))
            os.rename(f"{self._folder}/server", f"{self._folder}/down/end")


class SpoolPlace:
    """A spool without a real server: it exists, and contains what the test writes."""

    def __init__(self, address: Address) -> None:
        self._path = address.body
        os.mkdir(self._path, 0o700)
        own = spool.Side.own(address)
        self._record = records.make(f"{self._path}/door", *own.lines())
        self._bell = spool_bell(self._path, batches=True, interval_ms=0)
        os.read(self._bell, 4096)  # its first ring

    def accept(self) -> tuple[SpoolWriter, None]:
        assert wait([self._bell], PATIENCE)
        os.read(self._bell, 4096)
        (request,) = (name for name in os.listdir(self._path) if name.endswith(".knock"))
        os.unlink(f"{self._path}/{request}")
        return SpoolWriter(f"{self._path}/{request.removesuffix('.knock')}"), None

    def __enter__(self) -> SpoolPlace:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._bell)
        self._record.close()
        shutil.rmtree(self._path, ignore_errors=True)


class _Spool:
    def visit(self, address: Address) -> SpoolVisitor:
        return SpoolVisitor(address)

    def occupy(self, address: Address) -> SpoolPlace:
        return SpoolPlace(address)


class Sender(NamedTuple):
    """Something to send pieces into, which are no longer than a connect request."""

    send: Callable[[bytes], object]
    leave: Callable[[], object]
    size: int = CONNECT_REQUEST_SIZE

    def sendall(self, data: bytes) -> None:
        for at in range(0, len(data), self.size):
            with contextlib.suppress(OSError, posix_ipc.BusyError):
                self.send(data[at : at + self.size])

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()


class PosixPlace:
    """A queue for connect requests whose owner is not a server."""

    def __init__(self, address: Address) -> None:
        self._name = f"/localrpc-{os.geteuid()}-{os.urandom(8).hex()}-requests"
        self._record = mq.registered.take(address, self._name)
        self._requests = posix_ipc.MessageQueue(
            self._name,
            posix_ipc.O_CREX,
            mode=0o600,
            max_messages=3,
            max_message_size=CONNECT_REQUEST_SIZE,
        )

    def accept(self) -> tuple[Sender, None]:
        (token,) = ConnectRequestParser().feed(self._requests.receive(PATIENCE)[0])
        down = posix_ipc.MessageQueue(f"/localrpc-{os.geteuid()}-{token}-down")

        def leave() -> None:
            with contextlib.suppress(posix_ipc.BusyError):
                down.send(b"", 0)
            down.close()

        return Sender(lambda data: down.send(data, 0), leave, 4096), None

    def __enter__(self) -> PosixPlace:
        return self

    def __exit__(self, *_: object) -> None:
        self._requests.close()
        posix_ipc.unlink_message_queue(self._name)
        self._record.remove()


class _PosixQueue:
    def visit(self, address: Address) -> Sender:
        requests = posix_ipc.MessageQueue(mq.registered.find(address)[0])
        return Sender(lambda data: requests.send(data, PATIENCE), requests.close)

    def occupy(self, address: Address) -> PosixPlace:
        return PosixPlace(address)


class SysvPlace:
    """The same with a System V queue."""

    def __init__(self, address: Address) -> None:
        self._address = address
        key = int.from_bytes(os.urandom(3), "little") + 1
        self._record = sysvmq.registered.take(address, str(key))
        self._requests = lib.lr_msgget(key, 1)
        assert self._requests >= 0

    def accept(self) -> tuple[Sender, None]:
        room = ffi.new("char[]", CONNECT_REQUEST_SIZE)
        assert lib.lr_msgrcv(self._requests, room, CONNECT_REQUEST_SIZE, 1) == CONNECT_REQUEST_SIZE
        (token,) = ConnectRequestParser().feed(bytes(ffi.buffer(room)))
        lines, _ = records.read(sysvmq.registered.client_record(self._address, token))
        down = lib.lr_msgget(int(lines[1]), 0)
        return Sender(
            lambda data: lib.lr_msgsnd(down, data, len(data)),
            lambda: lib.lr_msgsnd(down, b"", 0),
            4096,
        ), None

    def __enter__(self) -> SysvPlace:
        return self

    def __exit__(self, *_: object) -> None:
        lib.lr_msgctl_remove(self._requests)
        self._record.remove()


class _SysvQueue:
    def visit(self, address: Address) -> Sender:
        requests = lib.lr_msgget(int(sysvmq.registered.find(address)[0]), 0)
        return Sender(lambda data: lib.lr_msgsnd(requests, data, len(data)), lambda: None)

    def occupy(self, address: Address) -> SysvPlace:
        return SysvPlace(address)


_FRESH = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL

KINDS: dict[str, Kind] = {
    "pipe": _Fifo(),
    "mq": _PosixQueue(),
    "sysvmq": _SysvQueue(),
    "file": _Spool(),
    "inproc": _Inproc(),
}

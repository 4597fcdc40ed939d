"""Strangers at places that are no sockets: each like a socket in what the tests do with it."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
from typing import Any, NamedTuple, Protocol

from localrpc._core.links import spool_bell
from localrpc.address import Address
from localrpc.options import Options
from localrpc.transports import file, inproc, pipe, records
from localrpc.transports.door import SocketGreeting
from localrpc.transports.meeting import KNOCK_SIZE, Knocks
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
    """A FIFO that somebody reads who is no server."""

    def __init__(self, address: Address) -> None:
        self._path = address.body
        os.mkfifo(self._path, 0o600)
        self._fd = os.open(self._path, os.O_RDWR)

    def accept(self) -> tuple[Writer, None]:
        assert select.select([self._fd], [], [], PATIENCE)[0]
        (token,) = Knocks().feed(os.read(self._fd, KNOCK_SIZE))
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
    """A listener of this process that is no server."""

    def __init__(self, address: Address) -> None:
        self._listener = inproc.InprocTransport().listen(address, Options())

    def accept(self) -> tuple[socket.socket, None]:
        assert select.select([self._listener], [], [], PATIENCE)[0]
        (greeting,) = self._listener.accept()
        assert isinstance(greeting, SocketGreeting)
        return greeting.medium.sock, None

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
    """A client's folder at a spool, made by hand: what it says lies in up/0."""

    def __init__(self, address: Address) -> None:
        self.folder = os.path.join(address.body, os.urandom(8).hex())
        os.mkdir(self.folder, 0o700)
        for name in ("up", "down"):
            os.mkdir(f"{self.folder}/{name}", 0o700)
        own = file.Side.own(address, made=False)
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
        os.close(os.open(f"{self._folder}/server", _FRESH, 0o600))
        os.rename(f"{self._folder}/server", f"{self._folder}/down/end")


class SpoolPlace:
    """A spool whose server is none: it is there, and says what the test says."""

    def __init__(self, address: Address) -> None:
        self._path = address.body
        os.mkdir(self._path, 0o700)
        own = file.Side.own(address, made=False)
        self._door = records.make(f"{self._path}/door", *own.lines())
        self._bell = spool_bell(self._path, batches=True, interval_ms=0)

    def accept(self) -> tuple[SpoolWriter, None]:
        assert select.select([self._bell], [], [], PATIENCE)[0]
        os.read(self._bell, 4096)
        (knock,) = (name for name in os.listdir(self._path) if name.endswith(".knock"))
        os.unlink(f"{self._path}/{knock}")
        return SpoolWriter(f"{self._path}/{knock.removesuffix('.knock')}"), None

    def __enter__(self) -> SpoolPlace:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._bell)
        self._door.close()
        shutil.rmtree(self._path, ignore_errors=True)


class _Spool:
    def visit(self, address: Address) -> SpoolVisitor:
        return SpoolVisitor(address)

    def occupy(self, address: Address) -> SpoolPlace:
        return SpoolPlace(address)


_FRESH = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL

KINDS: dict[str, Kind] = {"pipe": _Fifo(), "file": _Spool(), "inproc": _Inproc()}

"""file:, a spool: files in a directory that belongs to one user, and nothing else.

A server's record, DIR/door, shows that it lives. A client makes a folder, DIR/TOKEN, with its
HELLO, and renames DIR/TOKEN/knock to DIR/TOKEN.knock. spool.py describes the files. The owner
of a file identifies the user of its side; a pid is trusted if both sides are in one PID
namespace, otherwise heartbeats show if a side lives.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from functools import partial
from typing import Any

from localrpc._core import lib
from localrpc.address import Address
from localrpc.errors import AddressInUse, ConnectError, ListenError
from localrpc.options import Options
from localrpc.transports import limits, names, records
from localrpc.transports.attempt import Attempt
from localrpc.transports.base import (
    EVERYBODY,
    Admission,
    Connection,
    Dialer,
    Listener,
    PeerCredentials,
    Redialer,
    Transport,
)
from localrpc.transports.byte_channels import ByteChannel
from localrpc.transports.connect_requests import (
    ConnectRequestListener,
    Place,
    absent,
    encode_connect_request,
    gone,
    new_token,
    server_side,
    unreachable,
)
from localrpc.transports.credentials import identified
from localrpc.transports.handshake_client import ClientSide, dial
from localrpc.transports.handshake_server import ServerSide
from localrpc.transports.scheme import Kind, Scope
from localrpc.transports.spool import (
    HEARTBEAT,
    INTERVAL,
    REQUEST_SUFFIX,
    TOKEN,
    WATCH,
    WRITE,
    Side,
    SpoolChannel,
    bell_of,
    is_unwritten,
    owner_of,
    read_side,
    remove,
    sweep,
)
from localrpc.transports.targets import SPIN, check_characters

_TRIES = 10


class _SpoolPlace(Place):
    def __init__(self, address: Address, path: str, own: Side, record: records.Record) -> None:
        self._address = address
        self._path = path
        self._own = own
        self._record = record
        self._given_back = False
        self._fd, _ = bell_of(address, path, batches=True)

    def fileno(self) -> int:
        return self._fd

    def read(self) -> bytes:
        """Return and remove every connect request."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._fd, 4096):
                pass
        requests = []
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._path):
                if re.fullmatch(TOKEN + re.escape(REQUEST_SUFFIX), name):
                    with contextlib.suppress(OSError):
                        os.unlink(os.path.join(self._path, name))
                        requests.append(encode_connect_request(name.removesuffix(REQUEST_SUFFIX)))
        if not requests:
            raise BlockingIOError(errno.EAGAIN, "no connect request")
        return b"".join(requests)

    def enter(self, token: str) -> tuple[ByteChannel, ServerSide[Any]]:
        path = os.path.join(self._path, token)
        client = os.path.join(path, "client")
        try:
            theirs, _ = read_side(client)
            owner = owner_of(client)
            record = records.make(os.path.join(path, "server"), *self._own.lines())
            channel = SpoolChannel(self._address, path, lib.LR_SERVER, self._own, theirs, record)
        except FileNotFoundError:
            remove(path)
            raise
        except ValueError:
            self._turn_away(path)
            raise OSError(errno.EINVAL, "its record is damaged") from None
        except BaseException:
            self._turn_away(path)
            raise
        return channel, server_side(owner, lambda pid: channel.open_pidfd("client", pid))

    def _turn_away(self, path: str) -> None:
        """Let a client see the end, without a descriptor."""
        with contextlib.suppress(OSError):
            record = os.path.join(path, "server")
            os.mknod(record, 0o600)
            os.rename(record, os.path.join(path, "down", "end"))

    def sweep(self) -> bool:
        with names.locked(self._path, patience=0):
            return sweep(self._path, self._own)

    def release_name(self) -> None:
        self._given_back = True
        self._record.remove()

    def close(self) -> None:
        self._record.close()
        fd, self._fd = self._fd, -1
        os.close(fd)
        if self._given_back:
            names.leave_directory(self._path)


class FileTransport(Transport):
    scheme = "file"
    options = (SPIN, WATCH, INTERVAL, WRITE, HEARTBEAT)
    kinds = (
        Kind(
            form="DIR",
            spellings={
                "file:DIR": "a spool: a directory in which files carry everything, for comparison"
                " and for volumes that containers share. It has to belong to the user and be"
                " closed to others; a server creates it if it is missing, and then removes it"
                " again"
            },
            scope=Scope.USER,
            direction="two one-way channels",
            technique="spool files, watched with inotify or polled",
            credentials="uid: the files' owner; pid: the process that has them open, from /proc",
            limits=lambda: {
                **limits.settings("fs/inotify", "max_user_instances", "max_user_watches"),
                "RLIMIT_NOFILE": limits.rlimit("RLIMIT_NOFILE"),
            },
        ),
    )
    quality = "Files alone, in a directory that both sides can write: the slow way."

    def check(self, name: str) -> str:
        if name.startswith("///"):
            name = name[2:]
        check_characters(name)
        if name.startswith("//"):
            raise ValueError(
                "after '//' the path must be absolute (write file:DIR for a relative one)"
            )
        if name and not name.strip("/"):
            raise ValueError("the root directory cannot be a spool; choose another")
        return name.rstrip("/")

    def listen(
        self, address: Address, options: Options, admission: Admission = EVERYBODY
    ) -> Listener:
        path = os.path.abspath(address.body)
        try:
            for attempt in range(_TRIES):
                try:
                    place = self._place(address, path)
                    return ConnectRequestListener(address, options, admission, place)
                except FileNotFoundError:
                    # A server that goes has taken its directory with it.
                    if attempt == _TRIES - 1:
                        raise
        except OSError as error:
            raise ListenError(str(address), error.strerror or str(error)) from error
        raise AssertionError

    def _place(self, address: Address, path: str) -> _SpoolPlace:
        names.check_directory("the spool", path, create=True)
        server_record = os.path.join(path, "door")
        with names.locked(path):
            try:
                _, lives = read_side(server_record)
            except FileNotFoundError:
                pass
            except ValueError:
                if not is_unwritten(server_record):
                    reason = (
                        f"{server_record} exists and does not belong to a spool; remove it, or use"
                    )
                    reason += " another directory"
                    raise ListenError(str(address), reason) from None
                os.unlink(server_record)  # no process is about to write it: the directory is locked
            else:
                if lives:
                    raise AddressInUse(str(address), names.IN_USE)
                os.unlink(server_record)
            own = Side.own(address)
            record = records.make(server_record, *own.lines())
            sweep(path)
        try:
            return _SpoolPlace(address, path, own, record)
        except BaseException:
            record.remove()
            raise

    def dialer(self, address: Address, options: Options) -> Dialer:
        return Redialer(partial(_dial, address, options))


def _dial(address: Address, options: Options, attempt: Attempt) -> Connection:
    path = os.path.abspath(address.body)
    with contextlib.ExitStack() as stack:
        try:
            channel, server = _connect(address, path)
            stack.enter_context(channel)
            alive = channel.open_server_pidfd()
            if alive >= 0:
                stack.callback(os.close, alive)
            # A lock that is held now means that the pid was the server's; otherwise the server died
            # before it could be watched.
            _find_again(address, path)
        except OSError as error:
            raise unreachable(address, error.strerror or str(error)) from None
        side = ClientSide(
            connect=lambda attempt: channel,
            identify=lambda channel: server,
            peer_name=f"unix:{address.body}",
            watch=lambda channel, peer, hello: identified(
                peer, hello.pid, lambda pid: channel.open_pidfd("server", pid)
            ),
            alive=lambda: alive if alive >= 0 else None,
        )
        return dial(side, address, options, attempt)


def _find(address: Address, path: str) -> tuple[Side, PeerCredentials]:
    """Find a live server and its user. Raises ConnectError or OSError."""
    server_record = os.path.join(path, "door")
    try:
        side, lives = read_side(server_record)
        facts = os.lstat(server_record)
    except FileNotFoundError:
        raise absent(address, path) from None
    except ValueError:
        if is_unwritten(server_record):
            raise gone(address, path) from None
        raise unreachable(address, f"{server_record} does not belong to a spool") from None
    if not lives:
        raise gone(address, path)
    return side, PeerCredentials(0, facts.st_uid, facts.st_gid)


def _find_again(address: Address, path: str) -> None:
    """Raises ConnectError if the server has gone since it was found."""
    try:
        _find(address, path)
    except ConnectError:
        raise gone(address, path, passing=True) from None


def _connect(address: Address, path: str) -> tuple[SpoolChannel, PeerCredentials]:
    """Make a folder and identify the server. Raises ConnectError or OSError."""
    folder = os.path.join(path, new_token())
    try:
        names.check_directory("the spool", path, create=False)
        with names.locked(path):
            theirs, server = _find(address, path)
            own = Side.own(address)
            os.mkdir(folder, 0o700)
            try:
                os.mkdir(os.path.join(folder, "up"), 0o700)
                os.mkdir(os.path.join(folder, "down"), 0o700)
                record = records.make(os.path.join(folder, "client"), *own.lines())
                channel = SpoolChannel(
                    address,
                    folder,
                    lib.LR_CLIENT,
                    own,
                    theirs,
                    record,
                    confirm=lambda: _find_again(address, path),
                )
            except BaseException:
                remove(folder)
                raise
    except FileNotFoundError:
        _find(address, path)  # raises, because a server that goes takes its directory with it
        raise
    return channel, server

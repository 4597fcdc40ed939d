"""pipe:, two one-way pipes: named FIFOs between any processes, or inherited from a parent.

pipe:PATH is a FIFO for connect requests; each client makes two of its own beside it. The
FIFOs belong to one user (mode 0600), and the kernel reports which user made them.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import signal
import stat
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

from localrpc.address import Address
from localrpc.errors import AddressInUse, ConnectError, GreetingError, ListenError
from localrpc.options import Options
from localrpc.transports import inherited, names, records
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
from localrpc.transports.byte_channels import ByteChannel, Descriptors, PipeChannel, grow_pipe
from localrpc.transports.connect_requests import (
    CONNECT_REQUEST_SIZE,
    ConnectRequestListener,
    Place,
    encode_connect_request,
    gone,
    new_token,
    send_connect_request,
    server_side,
    unreachable,
)
from localrpc.transports.credentials import (
    identified,
    maker_of,
    open_pidfd_of_sharer,
    refusal_of_server,
)
from localrpc.transports.handshake_client import ClientSide, dial
from localrpc.transports.handshake_server import ServerSide
from localrpc.transports.scheme import Kind, Scope
from localrpc.transports.targets import SPIN, check_characters

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
_WRITE = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW

PIPE_SIZE = 256 * 1024
"""Bytes each pipe is grown to: an ordinary user may have 64 MiB in all (pipe(7))."""


class Ends(NamedTuple):
    """The names of a client's two FIFOs."""

    up: str
    down: str


def ends(path: str, token: str) -> Ends:
    return Ends(f"{path}.{token}.up", f"{path}.{token}.down")


def _owner(fd: int, path: str) -> PeerCredentials:
    """Return the owner of a FIFO. Raises GreetingError for anything else."""
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        raise GreetingError(f"{path} is not a FIFO")
    return maker_of(fd)


class _FifoPlace(Place):
    def __init__(self, path: str, fd: int) -> None:
        self._path = path
        self._fd = fd
        facts = os.fstat(fd)
        self._identity = (facts.st_dev, facts.st_ino)

    def fileno(self) -> int:
        return self._fd

    def read(self) -> bytes:
        return os.read(self._fd, 64 * CONNECT_REQUEST_SIZE)

    def enter(self, token: str) -> tuple[ByteChannel, ServerSide[Any]]:
        up, down = ends(self._path, token)
        with Descriptors() as fds:
            rx = fds.add(os.open(up, _READ))
            owner = _owner(rx, up)
            keep = fds.add(os.open(down, _READ))
            _owner(keep, down)
            tx = fds.add(os.open(down, _WRITE))
            grow_pipe(tx, PIPE_SIZE)
            fds.take()
            channel = PipeChannel(rx, tx, keep)
        return channel, server_side(owner, lambda pid: open_pidfd_of_sharer(pid, rx))

    def sweep(self) -> bool:
        with names.locked(os.path.dirname(self._path) or ".", patience=0):
            return _sweep(self._path)

    def release_name(self) -> None:
        names.release_name(self._path, self._identity)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        os.close(fd)


class PipeTransport(Transport):
    scheme = "pipe"
    options = (SPIN,)
    kinds = (
        inherited.KIND,
        Kind(
            form="PATH",
            spellings={
                "pipe:PATH": "a FIFO's path, relative or absolute; each client makes two FIFOs of"
                " its own beside it"
            },
            scope=Scope.USER,
            direction="two one-way channels",
            technique="named FIFOs, two for each client",
            credentials="uid: the FIFOs' owner; pid: the process that has them open, from /proc",
            limits=inherited.limits_of_pipes,
        ),
    )
    quality = "For a parent and its children, or over FIFOs; needs no socket at all."
    nameless = True

    def check(self, name: str) -> str:
        if name.startswith("///"):
            name = name[2:]
        check_characters(name)
        if name.startswith("//"):
            raise ValueError(
                "after '//' the path must be absolute (write pipe:PATH for a relative one)"
            )
        if name.endswith("/"):
            raise ValueError("the path names a directory; add the FIFO's file name")
        return name

    def closed_to_others(self, address: Address) -> str | None:
        # A process that has inherited pipes has them from its caller.
        return super().closed_to_others(address) if address.body else None

    def listen(
        self, address: Address, options: Options, admission: Admission = EVERYBODY
    ) -> Listener:
        if not address.body:
            return inherited.listen(address, options, admission)
        path = address.body
        directory = os.path.dirname(path) or "."
        try:
            with names.locked(directory):
                _clear(path, str(address))
                _sweep(path)
                os.mkfifo(path, 0o600)
                try:
                    # Writing too: without a writer a reader would always be at its end.
                    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
                except OSError:
                    os.unlink(path)
                    raise
        except OSError as error:
            reason = error.strerror or str(error)
            raise ListenError(str(address), f"{path}: {reason}") from error
        return ConnectRequestListener(address, options, admission, _FifoPlace(path, fd))

    def dialer(self, address: Address, options: Options) -> Dialer:
        return Redialer(partial(_dial, address, options))


def _dial(address: Address, options: Options, attempt: Attempt) -> Connection:
    if not address.body:
        raise ConnectError(str(address), inherited.NO_SERVER)
    with contextlib.ExitStack() as stack:
        request_fd = stack.enter_context(_open_request_fifo(address))
        # Before the server learns of this client.
        try:
            refusal = refusal_of_server(_owner(request_fd, address.body), options)
        except GreetingError as error:
            refusal = str(error)
        if refusal:
            raise unreachable(address, refusal)
        side = ClientSide(
            connect=lambda attempt: _connect(address, request_fd, stack, attempt),
            identify=lambda channel: _owner(request_fd, address.body),
            peer_name=f"unix:{address.body}",
            watch=lambda channel, peer, hello: identified(
                peer, hello.pid, lambda pid: open_pidfd_of_sharer(pid, channel.fileno())
            ),
            alive=lambda: request_fd,
        )
        return dial(side, address, options, attempt)


@contextlib.contextmanager
def _open_request_fifo(address: Address) -> Iterator[int]:
    """Open the server's FIFO for writing. Raises ConnectError."""
    path = address.body
    try:
        fd = os.open(path, _WRITE)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise gone(address) from None
        fix = {
            errno.ENOENT: f"no server listens on {path}: start it, or check the name",
            errno.EACCES: f"{path} is not this user's: run client and server as the same user",
        }.get(error.errno or 0, path)
        raise unreachable(address, f"{error.strerror} ({fix})") from None
    try:
        yield fd
    finally:
        os.close(fd)


def _connect(
    address: Address, request_fd: int, stack: contextlib.ExitStack, attempt: Attempt
) -> PipeChannel:
    """Make two FIFOs, whose names `stack` removes, and send a connect request."""
    token = new_token()
    both = ends(address.body, token)
    directory = os.path.dirname(address.body) or "."
    with names.locked(directory):
        try:
            record = records.make(f"{address.body}.{token}{records.SUFFIX}", *both)
        except PermissionError:
            reason = f"the directory {directory} cannot be written, and clients make FIFOs there"
            raise unreachable(address, reason) from None
    stack.callback(record.remove)
    stack.callback(_remove, [*both])
    with Descriptors() as fds:
        for end in both:
            os.mkfifo(end, 0o600)
        rx = fds.add(os.open(both.down, _READ))
        keep = fds.add(os.open(both.up, _READ))
        tx = fds.add(os.open(both.up, _WRITE))
        grow_pipe(tx, PIPE_SIZE)
        try:
            send_connect_request(
                address,
                lambda: _write(request_fd, encode_connect_request(token)),
                attempt,
                room=request_fd,
            )
        except BrokenPipeError:
            raise gone(address, passing=True) from None
        fds.take()
        return PipeChannel(rx, tx, keep)


def _write(fd: int, data: bytes) -> None:
    """Write as os.write(), without a SIGPIPE, which is for the program to handle."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        os.write(fd, data)
    except BrokenPipeError:
        signal.sigtimedwait({signal.SIGPIPE}, 0)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _remove(paths: list[str]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            if stat.S_ISFIFO(os.lstat(path).st_mode):
                os.unlink(path)


def _sweep(path: str) -> bool:
    """Remove what killed clients have left; the directory is locked. Return True if live clients
    are connecting."""
    directory, name = os.path.split(path)
    return records.sweep(directory or ".", f"{glob.escape(name)}.*{records.SUFFIX}", _remove)


def _clear(path: str, target: str) -> None:
    """Remove a dead server's FIFO; never anything else."""
    try:
        facts = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISFIFO(facts.st_mode):
        raise ListenError(target, f"{path} exists and is not a FIFO; remove it, or use another")
    try:
        fd = os.open(path, _WRITE)
    except OSError as error:
        if error.errno == errno.ENXIO:
            os.unlink(path)
            return
        raise
    os.close(fd)
    raise AddressInUse(target, names.IN_USE)

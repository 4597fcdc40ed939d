"""mq:, POSIX message queues: one for connect requests, and a pair for each connection.

A queue belongs to one user (mode 0600), and the kernel reports which user made it. Its name is
removed as soon as both sides have opened it, and the kernel frees it with the last of them. See
mq_overview(7) for the limits.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import deque
from typing import Any

from localrpc._core import links
from localrpc._core.links import Link
from localrpc.address import Address
from localrpc.options import Options
from localrpc.transports import limits, posix, records
from localrpc.transports.attempt import Attempt
from localrpc.transports.base import (
    EVERYBODY,
    Admission,
    Dialer,
    Listener,
    PeerCredentials,
    Transport,
)
from localrpc.transports.byte_channels import ByteChannel, Descriptors
from localrpc.transports.connect_requests import (
    CONNECT_REQUEST_SIZE,
    ConnectRequestListener,
    Place,
    new_token,
)
from localrpc.transports.credentials import maker_of, open_pidfd_of_sharer
from localrpc.transports.handshake_server import ServerSide
from localrpc.transports.queues import (
    QueueDialing,
    Registered,
    ServerQueue,
    identified_with_pidfd,
    server_side_with_pidfd,
)
from localrpc.transports.scheme import Kind, Scope, what_is_missing
from localrpc.transports.targets import SPIN, plain_name
from localrpc.wire.codec import Hello

_DEPTH = 3
"""Messages in a queue: a user's 819,200 bytes hold 32 queues with this many messages of 8 KiB."""
_SIZE = 8192
_REQUESTS = 10
_NOT_IN_KERNEL = (
    "this kernel, or the sandbox around it, has no POSIX message queues"
    " (CONFIG_POSIX_MQUEUE); use another transport"
)
_FRAME_MAX = 4096 + 16  # a HELLO


class _Queue:
    """One open queue, never blocking; its number may be taken over."""

    def __init__(self, name: str, *, depth: int = 0, size: int = 0) -> None:
        """Made if there is a `depth`. Raises OSError: FileNotFoundError, ENOSPC for a limit."""
        posix_ipc = posix.load()
        try:
            if depth:
                queue = posix_ipc.MessageQueue(
                    name, posix_ipc.O_CREX, mode=0o600, max_messages=depth, max_message_size=size
                )
            else:
                queue = posix_ipc.MessageQueue(name)
        except posix_ipc.ExistentialError:
            raise FileNotFoundError(errno.ENOENT, f"no queue {name}") from None
        except posix_ipc.PermissionsError:
            raise PermissionError(
                errno.EACCES, f"the queue {name} belongs to another user"
            ) from None
        except OSError as error:
            if error.errno == errno.ENOSYS:
                raise OSError(errno.ENOSYS, _NOT_IN_KERNEL) from None
            # posix_ipc reports three limits with one text, which describes a fourth one.
            raise OSError(errno.ENOSPC, _limit()) from None
        queue.block = False
        self._queue = queue
        self._busy = posix_ipc.BusyError
        self.fd: int = queue.mqd
        self.size: int = queue.max_message_size

    def receive(self) -> bytes:
        """Raises BlockingIOError."""
        try:
            data: bytes = self._queue.receive()[0]
        except self._busy:
            raise BlockingIOError(errno.EAGAIN, "the queue is empty") from None
        return data

    def send(self, data: bytes) -> None:
        """Raises BlockingIOError."""
        try:
            self._queue.send(data)
        except self._busy:
            raise BlockingIOError(errno.EAGAIN, "the queue is full") from None


def _setting(name: str, default: int) -> int:
    found = limits.setting(f"fs/mqueue/{name}")
    return default if found is None else found


def _limit() -> str:
    """Return which limit on queues was reached, and how to raise it."""
    try:
        os.close(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        return f"{error.strerror}: raise the limit on descriptors (ulimit -n)"
    soft = limits.rlimit("RLIMIT_MSGQUEUE")
    return (
        f"no more message queues: this user's are limited to {soft} bytes in all (ulimit -q) and"
        f" the system's to {_setting('queues_max', 256)} (sysctl fs.mqueue.queues_max); close"
        " connections, or raise the limit (ulimit -q, LimitMSGQUEUE= for a systemd service)"
    )


def _name(token: str, end: str) -> str:
    return f"/localrpc-{os.geteuid()}-{token}-{end}"


def _remove(queues: list[str]) -> None:
    try:
        posix_ipc = posix.load()
    except OSError:
        return  # without it this process has made none, and can remove none
    for name in queues:
        with contextlib.suppress(posix_ipc.Error, OSError, ValueError):
            if name.startswith("/localrpc-"):
                posix_ipc.unlink_message_queue(name)


registered = Registered(".mq", _remove)


def _try_queue() -> None:
    name = _name(new_token(), "try")
    try:
        os.close(_Queue(name, depth=1, size=CONNECT_REQUEST_SIZE).fd)
    finally:
        _remove([name])


class QueueChannel(ByteChannel):
    """Two queues: what we read, and what we write."""

    kind = "mqueue"

    def __init__(self, rx: _Queue, tx: _Queue, owned: Descriptors) -> None:
        self._rx, self._tx = rx, tx
        self._owned = owned
        self._came: deque[bytes] = deque()

    def fileno(self) -> int:
        return self._rx.fd

    def receive(self, size: int) -> tuple[bytes, list[int]]:
        data = self._came.popleft() if self._came else self._rx.receive()
        if len(data) > size:
            self._came.append(data[size:])
        return data[:size], []

    def send(self, frame: bytes, fds: list[int]) -> None:
        for at in range(0, len(frame), self._tx.size):
            self._tx.send(frame[at : at + self._tx.size])

    def open_link(self, pidfd: int, address: Address) -> Link:
        rx, tx = self._owned.take()
        return links.open_mqueue(rx_fd=rx, tx_fd=tx, pidfd=pidfd, spin_us=SPIN.of(address))

    def close(self) -> None:
        if len(self._owned):
            with contextlib.suppress(BlockingIOError):
                self._tx.send(b"")  # the end of this direction
        self.forget()

    def forget(self) -> None:
        self._owned.close()


class _MqPlace(Place):
    def __init__(self, address: Address, queue: _Queue, name: str, record: records.Record) -> None:
        self._address = address
        self._queue = queue
        self._fd = queue.fd
        self._name = name
        self._record = record

    def fileno(self) -> int:
        return self._fd

    def read(self) -> bytes:
        return self._queue.receive().ljust(CONNECT_REQUEST_SIZE, b"\0")

    def enter(self, token: str) -> tuple[ByteChannel, ServerSide[Any]]:
        up, down = _name(token, "up"), _name(token, "down")
        fds = Descriptors()
        try:
            rx = _Queue(up)
            fds.add(rx.fd)
            tx = _Queue(down)
            fds.add(tx.fd)
        except BaseException:
            fds.close()
            raise
        finally:
            _remove([up, down])
        side = server_side_with_pidfd(maker_of(rx.fd), lambda pid: open_pidfd_of_sharer(pid, rx.fd))
        return QueueChannel(rx, tx, fds), side

    def sweep(self) -> bool:
        return registered.sweep_clients(self._address)

    def release_name(self) -> None:
        _remove([self._name])
        self._record.remove()

    def close(self) -> None:
        self._record.close()
        fd, self._fd = self._fd, -1
        os.close(fd)


class _Dialing(QueueDialing[_Queue, QueueChannel]):
    registered = registered

    def _open(self, place: str, stack: contextlib.ExitStack) -> _Queue:
        queue = _Queue(place)
        stack.callback(os.close, queue.fd)
        return queue

    def _pidfd_of(self, queue: _Queue, pid: int) -> int:
        return open_pidfd_of_sharer(pid, queue.fd)

    def _owner(self, queue: _Queue) -> PeerCredentials:
        return maker_of(queue.fd)

    def _connect(
        self,
        address: Address,
        server_queue: ServerQueue[_Queue],
        stack: contextlib.ExitStack,
        attempt: Attempt,
    ) -> QueueChannel:
        """`stack` removes the names of the pair: by then the server has opened both."""
        token = new_token()
        names = [_name(token, "up"), _name(token, "down")]
        depth = min(_DEPTH, _setting("msg_max", 10))
        size = min(_SIZE, _setting("msgsize_max", 8192))
        with Descriptors() as fds:

            def make(name: str) -> _Queue:
                queue = _Queue(name, depth=depth, size=size)
                fds.add(queue.fd)
                return queue

            (tx, rx), record = registered.make_pair(address, token, names, make)
            stack.callback(record.remove)
            stack.callback(_remove, names)
            registered.send_connect_request(
                address,
                server_queue,
                token,
                server_queue.queue.send,
                attempt,
                room=server_queue.queue.fd,
            )
            fds.take()
        owned = Descriptors()
        owned.add(rx.fd, tx.fd)
        return QueueChannel(rx, tx, owned)

    def _watch(
        self, channel: QueueChannel, peer: PeerCredentials, hello: Hello
    ) -> tuple[PeerCredentials, int]:
        return identified_with_pidfd(
            peer, hello.pid, lambda pid: open_pidfd_of_sharer(pid, channel.fileno())
        )


_QUEUES = _Dialing()


class MqTransport(Transport):
    scheme = "mq"
    options = (SPIN,)
    kinds = (
        Kind(
            form="NAME",
            spellings={
                "mq:NAME": "as for `shm:`; POSIX message queues, which need the package posix_ipc:"
                " on CPython 3.14 and later, `pip install 'localrpc[mq]'`"
            },
            scope=Scope.USER,
            direction="two one-way channels",
            technique="POSIX message queues, one each way",
            credentials="uid, gid: the queues' owner; pid: the process that has them open, from"
            " /proc",
            limits=lambda: {
                **limits.settings("fs/mqueue", "queues_max", "msg_max", "msgsize_max"),
                "RLIMIT_MSGQUEUE": limits.rlimit("RLIMIT_MSGQUEUE"),
                "RLIMIT_NOFILE": limits.rlimit("RLIMIT_NOFILE"),
            },
            served=registered.served,
            missing=lambda: what_is_missing(_try_queue),
        ),
    )
    quality = "POSIX message queues: the system's limits on their number and size apply."

    def check(self, name: str) -> str:
        return plain_name(name)

    def listen(
        self, address: Address, options: Options, admission: Admission = EVERYBODY
    ) -> Listener:
        name = _name(new_token(), "requests")
        depth = min(_REQUESTS, _setting("msg_max", 10))
        queue, record = registered.make_place(
            address, name, lambda name: _Queue(name, depth=depth, size=CONNECT_REQUEST_SIZE)
        )
        place = _MqPlace(address, queue, name, record)
        return ConnectRequestListener(address, options, admission, place)

    def dialer(self, address: Address, options: Options) -> Dialer:
        return _QUEUES.dialer(address, options)

"""sysvmq:, System V message queues: one to knock at, and a pair for each connection.

A queue is found by its key, belongs to one user (mode 0600), and outlives its
processes: keys are written in records before the queues are made, a link removes
its queues, and the next server what killed ones have left. Such a queue is no
descriptor: a thread waits in msgrcv(2) for who cannot. See sysvipc(7), svipc(7).
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections import deque
from collections.abc import Callable

from localrpc import _log
from localrpc._core import ffi, lib, links
from localrpc._core.links import Link
from localrpc.address import Address
from localrpc.options import Options
from localrpc.transports import limits, records
from localrpc.transports.base import (
    Greeting,
    Listener,
    Offer,
    PeerCredentials,
    Scope,
    what_is_missing,
)
from localrpc.transports.media import Medium
from localrpc.transports.meeting import KNOCK_SIZE, gone, new_token
from localrpc.transports.queues import (
    Door,
    QueueListener,
    QueueTransport,
    Registered,
    SeenGreeting,
    seen,
)
from localrpc.wire.codec import Hello

_logger = _log.logger("transports")

_GONE = (errno.EIDRM, errno.EINVAL)


def _check(result: int) -> int:
    """Raises OSError for a negative errno."""
    if result >= 0:
        return result
    if -result == errno.ENOSPC:
        raise OSError(
            errno.ENOSPC,
            f"no more System V message queues: the system's are limited to {_setting('msgmni')}"
            " (ipcs -q shows them, sysctl kernel.msgmni raises the limit)",
        )
    if -result == errno.ENOSYS:
        raise OSError(
            errno.ENOSYS,
            "this kernel, or the sandbox around it, has no System V message queues"
            " (CONFIG_SYSVIPC); use another transport",
        )
    raise OSError(-result, os.strerror(-result))


def _setting(name: str) -> int:
    return limits.setting(f"kernel/{name}") or 8192


def _new_key() -> int:
    """Positive, because 0 is IPC_PRIVATE."""
    return int.from_bytes(os.urandom(4), "little") % 0x7FFFFFFE + 1


def _make(key: int) -> int:
    return _check(lib.lr_msgget(key, 1))


def _make_at(place: str) -> int:
    return _make(int(place))


def _find(key: int) -> int:
    return _check(lib.lr_msgget(key, 0))


def _drop(queue: int) -> None:
    lib.lr_msgctl_remove(queue)


def _remove(keys: list[str]) -> None:
    for key in keys:  # and a server's pid, which is nobody's key
        with contextlib.suppress(OSError, ValueError):
            queue = _find(int(key))
            if _facts(queue).uid == os.geteuid():
                _drop(queue)


registered = Registered(".sysvmq", _remove)


class _Facts:
    """What IPC_STAT says."""

    def __init__(self, queue: int) -> None:
        raw = ffi.new("struct lr_msgq *")
        _check(lib.lr_msgctl_stat(queue, raw))
        self.uid: int = raw.uid
        self.gid: int = raw.gid
        self.sender: int = raw.sender
        self.bytes: int = raw.bytes


_facts = _Facts


def _owner(queue: int) -> PeerCredentials:
    facts = _facts(queue)
    return PeerCredentials(0, facts.uid, facts.gid)


def _sender(queue: int) -> int:
    """The process that sent to `queue` last, by this namespace's number; 0 if it has none."""
    return _facts(queue).sender


def _open_pidfd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1


def _receive(queue: int, *, wait: bool) -> bytes | None:
    """None at the end. Raises BlockingIOError, InterruptedError, OSError."""
    room = ffi.new("char[]", lib.LR_SYSV_MAX)
    size = lib.lr_msgrcv(queue, room, lib.LR_SYSV_MAX, wait)
    if -size in _GONE:
        return None
    if -size == errno.ENOMSG:
        raise BlockingIOError(errno.EAGAIN, "the queue is empty")
    return bytes(ffi.buffer(room, _check(size)))


def _send(queue: int, data: bytes) -> None:
    """Raises OSError, BlockingIOError for a full queue."""
    _check(lib.lr_msgsnd(queue, data, len(data)))


class _Porter:
    """Waits at a queue on a thread of its own, and makes a descriptor readable."""

    def __init__(self, queue: int, *, rung: bool = False) -> None:
        self._queue = queue
        self._came: deque[bytes] = deque()
        self._thread: threading.Thread | None = None
        self.over = False
        """The queue has been removed."""
        self.bell = os.eventfd(int(rung), os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()

    def send_out(self, *, once: bool) -> None:
        with self._lock:
            if self._thread is not None:
                return
            self._thread = threading.Thread(
                target=self._run, args=(once,), name="localrpc-porter", daemon=True
            )
            self._thread.start()

    def _run(self, once: bool) -> None:
        while True:
            try:
                data = _receive(self._queue, wait=True)
            except InterruptedError:
                continue
            except OSError:
                data = None
            with self._lock:
                if data is None:
                    self.over = True
                else:
                    self._came.append(data)
                if self.bell >= 0:
                    os.eventfd_write(self.bell, 1)
                if once or self.over:
                    self._thread = None
                    return

    def take(self) -> list[bytes]:
        """What it has brought."""
        with self._lock:
            if self.bell >= 0:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self.bell)
            came = list(self._came)
            self._came.clear()
        return came

    def bring_rest(self) -> None:
        """What lies in the queue now, beside what the thread brings."""
        with contextlib.suppress(OSError):
            while (data := _receive(self._queue, wait=False)) is not None:
                with self._lock:
                    self._came.append(data)

    def dismiss(self) -> None:
        """Wait for the thread to leave a queue that has been removed; what it has, it keeps."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def close(self) -> None:
        """The queue is to be removed, for a thread that still waits."""
        with self._lock:
            bell, self.bell = self.bell, -1
        if bell >= 0:
            os.close(bell)


class SysvMedium(Medium):
    """Two queues by their ids; `sent` is called once something lies in the second."""

    kind = "sysvmq"

    def __init__(
        self,
        rx: int,
        tx: int,
        record: tuple[int, str],
        *,
        sent: Callable[[], None] | None = None,
        waits: bool,
    ) -> None:
        self._rx, self._tx = rx, tx
        self._record: tuple[int, str] | None = record
        self._sent = sent
        self._waits = waits
        self._porter = _Porter(rx, rung=not waits)
        self._rest = b""
        self._said = False

    @property
    def rx(self) -> int:
        return self._rx

    def fileno(self) -> int:
        return self._porter.bell

    def receive(self, size: int) -> tuple[bytes, list[int]]:
        if not self._rest:
            came = self._porter.take()
            if came:
                self._rest = b"".join(came)
            elif self._waits and not self._porter.over:
                self._porter.send_out(once=True)
                raise BlockingIOError(errno.EAGAIN, "nothing has come yet")
            else:
                self._rest = _receive(self._rx, wait=False) or b""
        data, self._rest = self._rest[:size], self._rest[size:]
        return data, []

    def send(self, frame: bytes, fds: list[int]) -> None:
        largest = min(lib.LR_SYSV_MAX, _setting("msgmax"))
        for at in range(0, len(frame), largest):
            _send(self._tx, frame[at : at + largest])
        self._said = True
        if self._sent is not None:
            self._sent()

    def open_link(self, pidfd: int, address: Address) -> Link:
        record, self._record = self._record, None
        self._porter.close()
        size = min(lib.LR_SYSV_MAX, _setting("msgmax"))
        with contextlib.suppress(OSError):  # gone again: the link will say so
            size = min(size, _facts(self._tx).bytes // 2)
        return links.open_sysv(
            rx_id=self._rx,
            tx_id=self._tx,
            size=size,
            pidfd=pidfd,
            record=record,
            spin_us=address.spin_us,
        )

    def close(self) -> None:
        if self._record is not None:
            _drop(self._rx)
            # What we said is still to be read: then the peer removes it, or the next server.
            if self._sent is not None or not self._said:
                _drop(self._tx)
                with contextlib.suppress(OSError):
                    os.unlink(self._record[1])
        self.forget()

    def forget(self) -> None:
        record, self._record = self._record, None
        if record is not None and record[0] >= 0:
            os.close(record[0])
        self._porter.close()


class _SysvGreeting(SeenGreeting):
    def watch(self, peer: PeerCredentials, hello: Hello) -> tuple[PeerCredentials, int]:
        assert isinstance(self.medium, SysvMedium)
        # By the kernel's word, which holds across PID namespaces, and not by its own.
        return super().watch(peer, hello._replace(pid=_sender(self.medium.rx)))


class _SysvListener(QueueListener):
    def __init__(
        self, address: Address, options: Options, queue: int, record: records.Record
    ) -> None:
        super().__init__(address, options, registered, record)
        self._queue = queue
        self._porter = _Porter(queue)
        self._porter.send_out(once=False)

    def fileno(self) -> int:
        return self._porter.bell

    def _read(self) -> bytes:
        came = [knock for knock in self._porter.take() if knock]  # empty: the queue is gone
        if not came:
            if self._porter.over and self._record.fd >= 0:
                _logger.error("%s: somebody has removed its queue: nobody can come", self.address)
            raise BlockingIOError(errno.EAGAIN, "nobody knocks")
        return b"".join(knock.ljust(KNOCK_SIZE, b"\0") for knock in came)

    def _enter(self, token: str) -> Greeting:
        path = registered.client_record(self.address, token)
        lines, _ = records.read(path)
        try:
            up, down = map(int, lines)
        except ValueError:
            raise OSError(errno.EINVAL, "its record is damaged") from None
        rx = _find(up)
        medium = SysvMedium(rx, _find(down), (-1, path), waits=False)
        return _SysvGreeting(medium, self.address, self._options, _owner(rx), _open_pidfd)

    def _remove_door(self) -> None:
        registered.give_up(self.address, self._record)
        self._porter.bring_rest()
        _drop(self._queue)
        self._porter.dismiss()

    def _close_door(self) -> None:
        self._porter.close()


class SysvMqTransport(QueueTransport[int, SysvMedium]):
    scheme = "sysvmq"
    registered = registered

    def offers(self) -> tuple[Offer, ...]:
        return (
            Offer(
                target="sysvmq:NAME",
                scope=Scope.USER,
                direction="two one-way channels",
                technique="System V message queues, one each way",
                credentials="uid, gid: who made the queues; pid: who sent last",
                zero_copy=False,
                limits={
                    **limits.settings("kernel", "msgmax", "msgmnb", "msgmni"),
                    "RLIMIT_NOFILE": limits.rlimit("RLIMIT_NOFILE"),
                },
                missing=what_is_missing(lambda: _drop(_make(_new_key()))),
            ),
        )

    def listen(self, address: Address, options: Options) -> Listener:
        queue, record = registered.make_place(address, str(_new_key()), _make_at)
        return _SysvListener(address, options, queue, record)

    def _open(self, place: str, stack: contextlib.ExitStack) -> int:
        return _find(int(place))

    def _pidfd_of(self, queue: int, pid: int) -> int:
        return _open_pidfd(pid)

    def _owner(self, queue: int) -> PeerCredentials:
        return _owner(queue)

    def _connect(
        self, address: Address, door: Door[int], stack: contextlib.ExitStack, until: float
    ) -> SysvMedium:
        """The pair and its record are the link's; the knock follows the HELLO, so that it
        is there by then."""
        token = new_token()
        keys = [str(_new_key()), str(_new_key())]
        (up, down), record = registered.make_pair(address, token, keys, _make_at)

        def send(data: bytes) -> None:
            try:
                _send(door.queue, data)
            except OSError as error:
                if error.errno in _GONE:
                    raise gone(address) from None
                raise

        def sent() -> None:
            registered.knock(address, door, token, send, until)

        return SysvMedium(down, up, record.take(), sent=sent, waits=True)

    def _watch(
        self, medium: SysvMedium, peer: PeerCredentials, hello: Hello
    ) -> tuple[PeerCredentials, int]:
        return seen(peer, _sender(medium.rx), _open_pidfd)

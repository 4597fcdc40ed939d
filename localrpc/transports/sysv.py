"""System V message queues of this user: made, found and removed by key; and a waiting thread.

See sysvipc(7), svipc(7), msgop(2).
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections import deque

from localrpc import _locks
from localrpc._core import ffi, lib
from localrpc.transports import limits
from localrpc.transports.base import PeerCredentials

__all__ = [
    "GONE",
    "Facts",
    "ReceiverThread",
    "drop",
    "find",
    "largest_message",
    "make",
    "make_at",
    "new_key",
    "open_pidfd",
    "owner_of",
    "receive",
    "remove",
    "send",
    "sender_of",
]

GONE = (errno.EIDRM, errno.EINVAL)
"""The errors of calls on a queue that has been removed."""


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


def _check_queue(result: int) -> int:
    """Raises ConnectionResetError if the queue has been removed, OSError for other errors."""
    if -result in GONE:
        raise ConnectionResetError(-result, "the peer has removed its queue")
    return _check(result)


def _setting(name: str) -> int:
    return limits.setting(f"kernel/{name}") or 8192


def largest_message() -> int:
    """Bytes."""
    return min(lib.LR_SYSV_MAX, _setting("msgmax"))


def new_key() -> int:
    """Positive, because 0 is IPC_PRIVATE."""
    return int.from_bytes(os.urandom(4), "little") % 0x7FFFFFFE + 1


def make(key: int) -> int:
    return _check(lib.lr_msgget(key, 1))


def make_at(place: str) -> int:
    return make(int(place))


def find(key: int) -> int:
    return _check(lib.lr_msgget(key, 0))


def drop(queue: int) -> None:
    lib.lr_msgctl_remove(queue)


def remove(keys: list[str]) -> None:
    for key in keys:  # and a server's pid, which is not a key
        with contextlib.suppress(OSError, ValueError):
            queue = find(int(key))
            if Facts(queue).uid == os.geteuid():
                drop(queue)


class Facts:
    """What IPC_STAT says."""

    def __init__(self, queue: int) -> None:
        raw = ffi.new("struct lr_msgq *")
        _check_queue(lib.lr_msgctl_stat(queue, raw))
        self.uid: int = raw.uid
        self.gid: int = raw.gid
        self.sender: int = raw.sender
        self.bytes: int = raw.bytes


def owner_of(queue: int) -> PeerCredentials:
    facts = Facts(queue)
    return PeerCredentials(0, facts.uid, facts.gid)


def sender_of(queue: int) -> int:
    """Return the process that sent to `queue` last, by this namespace's number; 0 if none."""
    return Facts(queue).sender


def open_pidfd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1


def receive(queue: int, *, wait: bool) -> bytes | None:
    """Return a message, None at the end. Raises BlockingIOError, InterruptedError or OSError."""
    room = ffi.new("char[]", lib.LR_SYSV_MAX)
    size = lib.lr_msgrcv(queue, room, lib.LR_SYSV_MAX, wait)
    if -size in GONE:
        return None
    if -size == errno.ENOMSG:
        raise BlockingIOError(errno.EAGAIN, "the queue is empty")
    return bytes(ffi.buffer(room, _check(size)))


def send(queue: int, data: bytes) -> None:
    """Raises OSError: BlockingIOError for a full queue, ConnectionResetError for a removed one."""
    _check_queue(lib.lr_msgsnd(queue, data, len(data)))


class ReceiverThread:
    """Receives from a queue on a separate thread, and makes a descriptor readable."""

    def __init__(self, queue: int, *, rung: bool = False) -> None:
        self._queue = queue
        self._came: deque[bytes] = deque()
        self._thread: threading.Thread | None = None
        self.queue_removed = False
        """The queue has been removed."""
        self.bell = os.eventfd(int(rung), os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = _locks.Lock()

    def start(self, *, once: bool) -> None:
        with self._lock:
            if self._thread is not None:
                return
            self._thread = threading.Thread(
                target=self._run, args=(once,), name="localrpc-receiver", daemon=True
            )
            self._thread.start()

    def _run(self, once: bool) -> None:
        while True:
            try:
                data = receive(self._queue, wait=True)
            except InterruptedError:
                continue
            except OSError:
                data = None
            with self._lock:
                if data is None:
                    self.queue_removed = True
                else:
                    self._came.append(data)
                if self.bell >= 0:
                    os.eventfd_write(self.bell, 1)
                if once or self.queue_removed:
                    self._thread = None
                    return

    def take(self) -> list[bytes]:
        """Return the messages that the thread has received."""
        with self._lock:
            if self.bell >= 0:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self.bell)
            came = list(self._came)
            self._came.clear()
        return came

    def receive_rest(self) -> None:
        """Collect what is in the queue now, in addition to what the thread receives."""
        with contextlib.suppress(OSError):
            while (data := receive(self._queue, wait=False)) is not None:
                with self._lock:
                    self._came.append(data)

    def join(self) -> None:
        """Wait for the thread to end, after the queue was removed; its messages are kept."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def close(self) -> None:
        """Close the descriptor; a thread that still waits ends when the queue is removed."""
        with self._lock:
            bell, self.bell = self.bell, -1
        if bell >= 0:
            os.close(bell)

"""Links: what the transports make of descriptors, and hand to an engine."""

from __future__ import annotations

import errno
import os
import signal as signals
from typing import Any

from localrpc._core import ffi, lib

__all__ = [
    "MEMORY_NAMED",
    "MEMORY_SEALED",
    "MEMORY_SYSV",
    "WAKE_FUTEX",
    "Link",
    "Spool",
    "claim_signal",
    "futexes_work",
    "make_bell",
    "open_mqueue",
    "open_pipe",
    "open_ring",
    "open_stream",
    "open_sysv",
    "spool_bell",
]

WAKE_FUTEX = lib.LR_WAKE_FUTEX
MEMORY_SEALED = lib.LR_MEMORY_SEALED
MEMORY_NAMED = lib.LR_MEMORY_NAMED
MEMORY_SYSV = lib.LR_MEMORY_SYSV
_ERROR_SIZE = 200


class Link:
    """One frame-keeping path to one peer; whoever takes it owns it."""

    __slots__ = ("_raw",)

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def take(self) -> Any:
        """The `struct lr_link *`, now the caller's. Raises ValueError when it was taken."""
        raw, self._raw = self._raw, None
        if raw is None:
            raise ValueError("this link has been taken, or closed")
        return raw

    @property
    def raw(self) -> Any:
        """The `struct lr_link *`, still this object's. Raises ValueError when it was taken."""
        if self._raw is None:
            raise ValueError("this link has been taken, or closed")
        return self._raw

    def close(self) -> None:
        """Close the link unless it was taken."""
        raw, self._raw = self._raw, None
        if raw is not None:
            lib.lr_link_close(raw)


def open_ring(
    *,
    tx_fd: int,
    rx_fd: int,
    ring_size: int,
    bell_fd: int,
    peer_bell_fd: int,
    sock_fd: int,
    pidfd: int,
    peer_pid: int,
    wake: int,
    spin_us: int,
    memory: int = MEMORY_SEALED,
) -> Link:
    """A ring in each direction, in the memory of `tx_fd` (ours to write) and `rx_fd`.

    Owns every descriptor from here on, also when it fails: ValueError when the
    memory is not what it should be, OSError when the system refuses. `pidfd` is
    -1 where there is none. `wake` is a signal's number, 0 for the bell, or
    WAKE_FUTEX; `spin_us` -1 for auto and -2 for always. With MEMORY_SYSV
    `tx_fd` and `rx_fd` are ids of segments, which are not owned.
    """
    if wake and wake != WAKE_FUTEX:
        try:
            claim_signal(wake)
        except ValueError:
            rings = set() if memory == MEMORY_SYSV else {tx_fd, rx_fd}
            for fd in rings | {bell_fd, peer_bell_fd, sock_fd, pidfd} - {-1}:
                os.close(fd)
            raise
    text = ffi.new("char[]", _ERROR_SIZE)
    raw = lib.lr_ring_open(
        memory, tx_fd, rx_fd, ring_size, bell_fd, peer_bell_fd, sock_fd, pidfd, peer_pid, wake,
        spin_us, text, _ERROR_SIZE,
    )  # fmt: skip
    return Link(_checked(raw, text))


def open_stream(*, fd: int, pidfd: int, spin_us: int) -> Link:
    """Frames on a connected stream socket; owns both descriptors, raises OSError."""
    text = ffi.new("char[]", _ERROR_SIZE)
    return Link(_checked(lib.lr_stream_open(fd, pidfd, spin_us, text, _ERROR_SIZE), text))


def open_pipe(*, rx_fd: int, tx_fd: int, keep_fd: int, pidfd: int, spin_us: int) -> Link:
    """Frames on two pipes; `keep_fd` reads what `tx_fd` writes. Owns all, raises OSError."""
    text = ffi.new("char[]", _ERROR_SIZE)
    raw = lib.lr_pipe_open(rx_fd, tx_fd, keep_fd, pidfd, spin_us, text, _ERROR_SIZE)
    return Link(_checked(raw, text))


def open_mqueue(*, rx_fd: int, tx_fd: int, pidfd: int, spin_us: int) -> Link:
    """Frames on two POSIX queues, `tx_fd` open both ways. Owns all, raises OSError."""
    text = ffi.new("char[]", _ERROR_SIZE)
    raw = lib.lr_mqueue_open(rx_fd, tx_fd, pidfd, spin_us, text, _ERROR_SIZE)
    return Link(_checked(raw, text))


def open_sysv(
    *, rx_id: int, tx_id: int, size: int, pidfd: int, record: tuple[int, str] | None, spin_us: int
) -> Link:
    """Frames on two System V queues, in messages of `size` bytes at most.

    Owns all, the queues too, and `record`, a file by its descriptor and path
    that goes when they do. Raises OSError.
    """
    text = ffi.new("char[]", _ERROR_SIZE)
    fd, path = record or (-1, "")
    raw = lib.lr_sysv_open(
        rx_id, tx_id, size, pidfd, fd, os.fsencode(path) if record else ffi.NULL, spin_us,
        text, _ERROR_SIZE,
    )  # fmt: skip
    return Link(_checked(raw, text))


class Spool:
    """One side of a spool's folder; closed unless open_link() takes it over."""

    def __init__(self, path: str, *, role: int, flags: int, record_fd: int, bell_fd: int) -> None:
        """Owns both descriptors, raises OSError."""
        text = ffi.new("char[]", _ERROR_SIZE)
        raw = lib.lr_spool_open(
            os.fsencode(path), role, flags, record_fd, bell_fd, text, _ERROR_SIZE
        )
        self._raw = _checked(raw, text)

    def receive(self, size: int) -> bytes:
        """Nothing at the end. Raises BlockingIOError, OSError."""
        self._check()
        room = ffi.new("char[]", size)
        return bytes(ffi.buffer(room, _counted(lib.lr_spool_read(self._raw, room, size))))

    def send(self, data: bytes) -> int:
        """How many bytes there was room for. Raises OSError."""
        self._check()
        return _counted(lib.lr_spool_write(self._raw, data, len(data)))

    def open_link(self, *, pidfd: int, pulse: tuple[int, int] | None, spin_us: int) -> Link:
        """With `pulse`, heartbeats at such intervals, ours and the peer's, in milliseconds.

        The peer's may be 0: then its silence says nothing, and its lock alone tells of its end.
        """
        self._check()
        raw, self._raw = self._raw, None
        text = ffi.new("char[]", _ERROR_SIZE)
        beat = ffi.new("struct lr_spool_pulse *", pulse) if pulse else ffi.NULL
        link = lib.lr_spool_link(raw, pidfd, beat, spin_us, text, _ERROR_SIZE)
        return Link(_checked(link, text))

    def close(self) -> None:
        """Idempotent. In a forked child what is shared is the parent's, and stays."""
        raw, self._raw = self._raw, None
        if raw is not None:
            lib.lr_spool_close(raw)

    def _check(self) -> None:
        if self._raw is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def spool_bell(folder: str, *, batches: bool, other: str | None = None, interval_ms: int) -> int:
    """Tells of what comes in `folder` and goes in `other`; raises OSError."""
    out = ffi.NULL if other is None else os.fsencode(other)
    return _counted(lib.lr_spool_bell(os.fsencode(folder), batches, out, interval_ms))


def _counted(result: int) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def make_bell() -> int:
    """What wakes the sleeper of a ring, for its peer to ring. Raises OSError."""
    return _counted(lib.lr_make_bell())


def claim_signal(signo: int) -> None:
    """Let `signo` wake sleeping threads. Raises ValueError if the program handles it itself.

    SIGURG, SIGUSR1, SIGUSR2 and the real-time ones: a peer sends no other.
    """
    if lib.lr_signal_claim(signo) < 0:
        raise ValueError(
            f"{_name(signo)} has a handler of the program's own and cannot be used for wake-ups; "
            "use ?wakeup=eventfd, or another signal (?wakeup=signal&signo=SIGUSR1)"
        )


def futexes_work() -> bool:
    """Whether this system lets a thread wait on several futexes (Linux 5.16, no sandbox)."""
    return bool(lib.lr_futexes_work())


def _name(signo: int) -> str:
    if signo < signals.SIGRTMIN:
        return signals.Signals(signo).name
    return f"SIGRTMIN+{signo - signals.SIGRTMIN}"


def _checked(raw: Any, text: Any) -> Any:
    number = ffi.errno
    if raw != ffi.NULL:
        return raw
    reason = ffi.string(text).decode()
    if number == errno.EINVAL:
        raise ValueError(reason)
    raise OSError(number, reason)

"""Links: made by transports from descriptors, and passed to an engine."""

from __future__ import annotations

import errno
import os
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
    """A path that delivers whole frames to one peer; the code that takes it owns it."""

    __slots__ = ("_raw",)

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def take(self) -> Any:
        """Return the `struct lr_link *`, which the caller then owns. Raises ValueError if taken."""
        raw, self._raw = self._raw, None
        if raw is None:
            raise ValueError("this link has been taken, or closed")
        return raw

    @property
    def raw(self) -> Any:
        """Return the `struct lr_link *`, which this object keeps. Raises ValueError if taken."""
        if self._raw is None:
            raise ValueError("this link has been taken, or closed")
        return self._raw

    def trust_begun(self) -> None:
        """Note that the server on the other side counts the calls that it gives to handlers.

        Has an effect on rings only.
        """
        lib.lr_link_trust_begun(self.raw)

    def close(self) -> None:
        """Close the link unless it has been taken."""
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
    """Open a ring in each direction, in the memory of `tx_fd` (writable) and `rx_fd`.

    Owns every descriptor from here on, even if it fails. Raises ValueError if the memory is
    invalid, and OSError if the system refuses. `pidfd` is -1 if there is none. `wake` is a
    signal's number, 0 for the bell, or WAKE_FUTEX; `spin_us` is -1 for auto and -2 for always.
    With MEMORY_SYSV `tx_fd` and `rx_fd` are ids of segments, which are not owned.
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
    """Open a link on a connected stream socket; owns both descriptors. Raises OSError."""
    text = ffi.new("char[]", _ERROR_SIZE)
    return Link(_checked(lib.lr_stream_open(fd, pidfd, spin_us, text, _ERROR_SIZE), text))


def open_pipe(*, rx_fd: int, tx_fd: int, keep_fd: int, pidfd: int, spin_us: int) -> Link:
    """Open a link on two pipes; `keep_fd` reads what `tx_fd` writes. Owns all. Raises OSError."""
    text = ffi.new("char[]", _ERROR_SIZE)
    raw = lib.lr_pipe_open(rx_fd, tx_fd, keep_fd, pidfd, spin_us, text, _ERROR_SIZE)
    return Link(_checked(raw, text))


def open_mqueue(*, rx_fd: int, tx_fd: int, pidfd: int, spin_us: int) -> Link:
    """Open a link on two POSIX queues; `tx_fd` is open both ways. Owns all. Raises OSError."""
    text = ffi.new("char[]", _ERROR_SIZE)
    raw = lib.lr_mqueue_open(rx_fd, tx_fd, pidfd, spin_us, text, _ERROR_SIZE)
    return Link(_checked(raw, text))


def open_sysv(
    *, rx_id: int, tx_id: int, size: int, pidfd: int, record: tuple[int, str] | None, spin_us: int
) -> Link:
    """Open a link on two System V queues, with messages of at most `size` bytes.

    Owns all, the queues, too, and `record`, a file by its descriptor and path, which is removed
    with them. Raises OSError.
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
        """Take over both descriptors. Raises OSError."""
        text = ffi.new("char[]", _ERROR_SIZE)
        raw = lib.lr_spool_open(
            os.fsencode(path), role, flags, record_fd, bell_fd, text, _ERROR_SIZE
        )
        self._raw = _checked(raw, text)

    def receive(self, size: int) -> bytes:
        """Read; empty at the end. Raises BlockingIOError or OSError."""
        self._check()
        room = ffi.new("char[]", size)
        return bytes(ffi.buffer(room, _counted(lib.lr_spool_read(self._raw, room, size))))

    def send(self, data: bytes) -> int:
        """Write; return how many bytes there was room for. Raises OSError."""
        self._check()
        return _counted(lib.lr_spool_write(self._raw, data, len(data)))

    def open_link(self, *, pidfd: int, heartbeat: tuple[int, int] | None, spin_us: int) -> Link:
        """Open a link. `heartbeat` has both sides' intervals, ours first, in ms.

        If the peer's is 0, its silence means nothing, and its lock alone shows that it has ended.
        """
        self._check()
        raw, self._raw = self._raw, None
        text = ffi.new("char[]", _ERROR_SIZE)
        intervals = ffi.new("struct lr_spool_heartbeat *", heartbeat) if heartbeat else ffi.NULL
        link = lib.lr_spool_link(raw, pidfd, intervals, spin_us, text, _ERROR_SIZE)
        return Link(_checked(link, text))

    def close(self) -> None:
        """Close it. Idempotent. In a forked child the parent's part stays."""
        raw, self._raw = self._raw, None
        if raw is not None:
            lib.lr_spool_close(raw)

    def _check(self) -> None:
        if self._raw is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def spool_bell(folder: str, *, batches: bool, other: str | None = None, interval_ms: int) -> int:
    """Return a descriptor that signals changes in `folder` and `other`. Raises OSError."""
    out = ffi.NULL if other is None else os.fsencode(other)
    return _counted(lib.lr_spool_bell(os.fsencode(folder), batches, out, interval_ms))


def _counted(result: int) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def make_bell() -> int:
    """Create the bell of a ring's reader, for its peer to ring. Raises OSError."""
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
    """Return True if a thread can wait on several futexes (Linux 5.16, no sandbox)."""
    return bool(lib.lr_futexes_work())


def _name(signo: int) -> str:
    import signal as signals

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

"""Files that say what a process has made, locked for as long as it lives.

What the kernel keeps after a crash (queues, FIFOs, segments) is written down
before it is made, so that the next process can tell what is left over, and
remove it. A record is locked with flock(2): the lock goes with its process,
whatever becomes of the process's number.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import fnmatch
import os
from collections.abc import Callable


class Record:
    """A record of this process's; the file goes with remove(), the lock with close()."""

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd

    def remove(self) -> None:
        """Remove the record. Idempotent, like close()."""
        if self.fd >= 0:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        self.close()

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def take(self) -> tuple[int, str]:
        """Descriptor and path, now the caller's to remove."""
        fd, self.fd = self.fd, -1
        return fd, self.path


def make(path: str, *lines: str) -> Record:
    """Write a new record; the caller holds the lock of its directory. Raises OSError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    record = Record(path, os.open(path, flags, 0o600))
    try:
        fcntl.flock(record.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(record.fd, "\n".join(lines).encode())
    except BaseException:
        record.remove()
        raise
    return record


def read(path: str) -> tuple[list[str], bool]:
    """Return its lines, and True if its process lives. Raises OSError.

    A record that is being made looks dead: hold the lock of the directory.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if (owner := os.fstat(fd).st_uid) != os.geteuid():
            # Otherwise another user could make us remove our own files.
            raise PermissionError(errno.EPERM, f"{path} belongs to uid {owner}")
        lines = os.read(fd, 65536).decode("utf-8", "replace").split("\n")
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return lines, True
        fcntl.flock(fd, fcntl.LOCK_UN)  # a child forked meanwhile would keep it
        return lines, False
    finally:
        os.close(fd)


def sweep(directory: str, pattern: str, remove: Callable[[list[str]], None]) -> bool:
    """Have `remove` clear up after every dead process with a record of such a name.

    The caller holds the directory's lock. Never raises OSError. Return True if one of the processes
    is alive.
    """
    some_live = False
    with contextlib.suppress(OSError):
        for name in fnmatch.filter(os.listdir(directory), pattern):
            with contextlib.suppress(OSError):
                some_live |= not clear(os.path.join(directory, name), remove)
    return some_live


def clear(path: str, remove: Callable[[list[str]], None]) -> bool:
    """As sweep(), for one record. Return False if its process is alive. Raises OSError."""
    lines, lives = read(path)
    if not lives:
        remove(lines)
        os.unlink(path)
    return not lives


SUFFIX = ".made"
"""The end of a client's record's name."""

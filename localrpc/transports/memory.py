"""The memory of a ring: sealed memfds, and for comparison what has a name or a key.

The client creates it and the server attaches to it. A name or key is removed as
soon as both have done so, or have failed to; it says whose it is, so that what
was left behind by a kill at any moment before is removed by the next process of
this user that listens or dials with such memory.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import time
from collections.abc import Iterator

from localrpc._core import lib, links, sysv
from localrpc.transports import posix

CONTROL_PAGE = lib.lr_page()
"""A page of the system's, where the ring's memory begins: the ring is mapped behind it."""
KINDS = {
    "memfd": links.MEMORY_SEALED,
    "posix": links.MEMORY_NAMED,
    "sysv": links.MEMORY_SYSV,
}

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
# linux/memfd.h since 6.3, where a memfd without it is logged or even refused.
_MFD_NOEXEC_SEAL = 8

# PID namespace, pid and start of the process that made it, then a random number.
_NAME = r"/?localrpc-(\d+)-(\d+)-(\d+)-[0-9a-f]{16}"
_KEY_PREFIX = 0x6C72
_POSIX_FOLDER = "/dev/shm"  # where shm_open() of both C libraries has it
_SYSV_TABLE = "/proc/sysvipc/shm"


class Segment:
    """One ring's memory: `handle` is a descriptor, or the id of a System V segment."""

    def __init__(self, kind: str, handle: int, name: str = "") -> None:
        self.kind = kind
        self.handle = handle
        self.name = name
        self._taken = kind == "sysv"

    def take(self) -> int:
        """Return the handle, for the caller to own."""
        self._taken = True
        return self.handle

    def remove(self) -> None:
        """Remove the name; processes that are attached stay so. Idempotent."""
        name, self.name = self.name, ""
        if name and self.kind == "sysv":
            sysv.remove(self.handle)
        elif name:
            unlink(name)

    def close(self) -> None:
        """Release memory that was not used. Idempotent."""
        self.remove()
        if not self._taken:
            os.close(self.take())


def create(kind: str, size: int) -> Segment:
    """Create a control page and `size` bytes, and allocate all of it.

    Raises OSError: ENOSPC, ENOMEM or EMFILE if the machine is full.
    """
    if kind == "posix":
        return _create_posix(CONTROL_PAGE + size)
    if kind == "sysv":
        return _create_sysv(CONTROL_PAGE + size)
    return Segment(kind, create_ring(size))


def attach(kind: str, name: str) -> Segment:
    """Open what a client has created. Raises OSError; ValueError for an invalid name."""
    if kind == "sysv":
        if not re.fullmatch(r"0x6c72[0-9a-f]{4}", name):
            raise ValueError(f"{name!r} is not a key of a ring")
        return Segment(kind, sysv.find(int(name, 16)), name)
    if not (name.startswith("/") and re.fullmatch(_NAME, name)):
        raise ValueError(f"{name!r} is not a name of a ring")
    return Segment(kind, _open_posix(name, create=False), name)


def sweep(kind: str) -> None:
    """Remove what processes of this user that are dead have left behind.

    Raises OSError if such memory is not available because posix_ipc is not installed.
    """
    if kind == "posix":
        posix.load()
        for name in abandoned_names():
            unlink(name)
    elif kind == "sysv":
        for segment in abandoned_segments():
            sysv.remove(segment)


def create_ring(size: int) -> int:
    """Create a sealed memfd of a control page and `size` bytes."""
    fd = _memfd()
    try:
        # Without this the first access to a page that is not available is a SIGBUS.
        os.posix_fallocate(fd, 0, CONTROL_PAGE + size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _memfd() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("localrpc-ring", flags | _MFD_NOEXEC_SEAL)
    except OSError:
        return os.memfd_create("localrpc-ring", flags)


# ---- POSIX ----


def _open_posix(name: str, *, create: bool) -> int:
    posix_ipc = posix.load()
    try:
        flags = posix_ipc.O_CREX if create else 0
        return int(posix_ipc.SharedMemory(name, flags, mode=0o600).fd)
    except posix_ipc.ExistentialError:
        number = errno.EEXIST if create else errno.ENOENT
    except posix_ipc.PermissionsError:
        number = errno.EACCES
    raise OSError(number, os.strerror(number))


def unlink(name: str) -> None:
    """Remove the name of a POSIX segment. Raises OSError if posix_ipc is not installed."""
    posix_ipc = posix.load()
    with contextlib.suppress(posix_ipc.ExistentialError, posix_ipc.PermissionsError):
        posix_ipc.unlink_shared_memory(name)


def _create_posix(size: int) -> Segment:
    who = f"{_pid_namespace()}-{os.getpid()}-{_started(os.getpid())}"
    name = f"/localrpc-{who}-{os.urandom(8).hex()}"
    segment = Segment("posix", _open_posix(name, create=True), name)
    try:
        os.fchmod(segment.handle, 0o600)  # despite the umask
        os.posix_fallocate(segment.handle, 0, size)
    except BaseException:
        segment.close()
        raise
    return segment


def abandoned_names() -> Iterator[str]:
    """Yield names of POSIX segments of this user whose makers are dead."""
    ours = str(_pid_namespace())
    try:
        names = os.listdir(_POSIX_FOLDER)
    except OSError:
        return
    for name in names:
        parts = re.fullmatch(_NAME, name)
        # A process of another PID namespace is not visible here and may be alive.
        if parts is None or parts[1] != ours or _started(int(parts[2])) == int(parts[3]):
            continue
        with contextlib.suppress(OSError):
            if os.stat(os.path.join(_POSIX_FOLDER, name)).st_uid == os.geteuid():
                yield f"/{name}"


# ---- System V ----


def _create_sysv(size: int) -> Segment:
    for _ in range(100):
        key = _KEY_PREFIX << 16 | int.from_bytes(os.urandom(2), "little")
        with contextlib.suppress(FileExistsError):
            return Segment("sysv", sysv.create(key, size), f"{key:#x}")
    raise OSError(errno.EEXIST, "no key is free for a System V segment (ipcs -m lists them)")


def abandoned_segments() -> Iterator[int]:
    """Yield ids of System V segments of this user whose makers are dead."""
    try:
        with open(_SYSV_TABLE) as table:
            heading = table.readline().split()
            rows = [dict(zip(heading, map(int, line.split()), strict=True)) for line in table]
    except OSError:
        return
    user = os.geteuid()
    for row in rows:
        if (
            row["key"] >> 16 != _KEY_PREFIX
            or row["nattch"]
            or (row["uid"], row["cuid"])
            != (
                user,
                user,
            )
        ):
            continue
        # A cpid of 0 is a process of another PID namespace: it may live.
        if row["cpid"] and not _lived_at(row["cpid"], row["ctime"]):
            yield row["shmid"]


def _lived_at(pid: int, moment: int) -> bool:
    """Return True if the process with that pid can be the one that had it then."""
    started = _started(pid)
    if started is None:
        return False
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
    return time.time() - age <= moment + 1  # the kernel gives whole seconds


# ---- processes ----


def _pid_namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _started(pid: int) -> int | None:
    """When that process began, in ticks since the machine did; None if it is dead."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])

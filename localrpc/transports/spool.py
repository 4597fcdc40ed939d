"""The contents of a spool: the records of its sides, and a folder for each connection.

spool.c describes such a folder, and which side removes it. A record is a file that
its process holds locked, and says where that process is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable
from typing import NamedTuple

from localrpc import _log
from localrpc._core import lib
from localrpc._core.links import Link, Spool, spool_bell
from localrpc.address import Address
from localrpc.errors import GreetingError
from localrpc.transports import records
from localrpc.transports.base import PeerCredentials
from localrpc.transports.byte_channels import ByteChannel, check_whole
from localrpc.transports.credentials import open_pidfd_of_holder
from localrpc.transports.targets import SPIN, choice, milliseconds

__all__ = [
    "HEARTBEAT",
    "INTERVAL",
    "REQUEST_SUFFIX",
    "TOKEN",
    "WATCH",
    "WRITE",
    "Side",
    "SpoolChannel",
    "World",
    "bell_of",
    "is_unwritten",
    "own_world",
    "owner_of",
    "read_side",
    "remove",
    "sweep",
]

_logger = _log.logger("transports")

WATCH = choice(
    "watch",
    "inotify",
    "poll",
    text="whether the kernel tells a reader of new files, or the reader polls. Poll where inotify"
    " does not see the other side's writes, or no inotify instance is left",
)
INTERVAL = milliseconds("interval", 20, text="how often a polling reader looks")
WRITE = choice(
    "write",
    "append",
    "rename",
    text="whether this side appends to files of 256 KiB, or writes each batch of frames to a file"
    " of its own and renames it into place",
)
HEARTBEAT = milliseconds(
    "heartbeat",
    1000,
    text="how often a side shows that it is alive to a side in another PID namespace, which takes"
    " it for dead after five missed heartbeats",
)

TOKEN = "[0-9a-f]{16}"
"""The name of a connection's folder."""
REQUEST_SUFFIX = ".knock"
"""The suffix of a connect request's file."""
_MAGIC = "localrpc spool 1"

_NO_MORE_INOTIFY = (errno.EMFILE, errno.ENOSPC)
_NO_INOTIFY = (errno.ENOSYS, errno.EPERM)
"""A kernel without it, or a sandbox."""

_warned: set[str] = set()


class World(NamedTuple):
    """Where a process's pid means something: a run of a kernel, and a PID namespace."""

    boot: str
    namespace: str


def own_world() -> World:
    """Return them; empty texts if there is no /proc."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return World(file.read().strip(), os.readlink("/proc/self/ns/pid"))
    except OSError:
        return World("", "")


class Side(NamedTuple):
    """The process that made a record, according to the record."""

    pid: int
    world: World
    batches: bool
    """True if it writes by rename."""
    heartbeat_ms: int

    @staticmethod
    def own(address: Address) -> Side:
        batches = WRITE.of(address) == "rename"
        return Side(os.getpid(), own_world(), batches, HEARTBEAT.of(address))

    def lines(self) -> list[str]:
        numbers = self.pid, self.batches, self.heartbeat_ms
        return [_MAGIC, *self.world, *(str(int(number)) for number in numbers)]

    @staticmethod
    def parse(lines: list[str]) -> Side:
        """Raises ValueError."""
        magic, boot, namespace, *texts = lines
        pid, batches, heartbeat = map(int, texts)
        if magic != _MAGIC or not 0 < heartbeat <= 60_000:
            raise ValueError("not a spool's record")
        return Side(pid, World(boot, namespace), bool(batches), heartbeat)

    def is_near(self, other: Side) -> bool:
        """On one kernel, which knows the locks of both."""
        return self.world.boot == other.world.boot != ""

    def sees(self, other: Side) -> bool:
        """Return True if a pid means the same process to both."""
        return self.world == other.world and self.is_near(other)


def read_side(path: str) -> tuple[Side, bool]:
    """Return a record, and True if its process lives. Raises OSError or ValueError."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise ValueError("not a file")
    lines, lives = records.read(path)
    return Side.parse(lines), lives


def is_unwritten(path: str) -> bool:
    """Return True for a record whose process was killed before writing, or is about to write."""
    facts = os.lstat(path)
    return stat.S_ISREG(facts.st_mode) and facts.st_size == 0


def owner_of(path: str) -> PeerCredentials:
    facts = os.lstat(path)
    if not stat.S_ISREG(facts.st_mode):
        raise GreetingError(f"{path} is not a file")
    return PeerCredentials(0, facts.st_uid, facts.st_gid)


def bell_of(
    address: Address, folder: str, *, batches: bool, other: str | None = None
) -> tuple[int, str]:
    """Return a descriptor that becomes readable with news, and its kind. Raises OSError."""
    interval = INTERVAL.of(address)
    if WATCH.of(address) != "poll":
        try:
            return spool_bell(folder, batches=batches, other=other, interval_ms=0), "inotify"
        except OSError as error:
            if error.errno not in (*_NO_INOTIFY, *_NO_MORE_INOTIFY):
                raise
            reason = error
        if str(address) not in _warned:
            _warned.add(str(address))
            _logger.warning(
                "%s: files are looked at every %d ms, because %s",
                address,
                interval,
                "this user has no inotify instance or watch left; raise"
                " fs.inotify.max_user_instances or max_user_watches (sysctl)"
                if reason.errno in _NO_MORE_INOTIFY
                else f"inotify cannot be used here: {reason.strerror}",
            )
    bell = spool_bell(folder, batches=batches, other=other, interval_ms=interval)
    return bell, "poll"


class SpoolChannel(ByteChannel):
    """One side of a folder. A client sends its connect request after its first bytes, and then
    calls `confirm`, which raises ConnectError if there is no server."""

    def __init__(
        self,
        address: Address,
        path: str,
        role: int,
        own: Side,
        theirs: Side,
        record: records.Record,
        confirm: Callable[[], object] | None = None,
    ) -> None:
        """Take over the record, even if this fails. Raises OSError."""
        self.path = path
        self._own = own
        self.theirs = theirs
        self._confirm = confirm
        self.kind = "inotify"
        up, down = os.path.join(path, "up"), os.path.join(path, "down")
        rx, tx = (down, up) if role == lib.LR_CLIENT else (up, down)
        try:
            self._fd, self.kind = bell_of(address, rx, batches=theirs.batches, other=tx)
        except BaseException:
            record.remove()
            raise
        flags = own.batches * lib.LR_SPOOL_OUR_BATCHES
        flags |= theirs.batches * lib.LR_SPOOL_THEIR_BATCHES
        flags |= own.is_near(theirs) * lib.LR_SPOOL_NEAR
        self._spool = Spool(
            path, role=role, flags=flags, record_fd=record.take()[0], bell_fd=self._fd
        )

    def fileno(self) -> int:
        return self._fd

    def receive(self, size: int) -> tuple[bytes, list[int]]:
        return self._spool.receive(size), []

    def send(self, frame: bytes, fds: list[int]) -> None:
        check_whole(self._spool.send(frame), frame)
        if self._confirm is not None:
            confirm, self._confirm = self._confirm, None
            request = os.path.join(self.path, "knock")
            os.close(os.open(request, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            os.rename(request, self.path + REQUEST_SUFFIX)
            # SYNC no-lost-request: we make the request, then look for the server's record
            # ("door"); the server, in close(), removes its record, then looks for requests.
            # A starting server looks for requests after it has made its record.
            confirm()

    def open_pidfd(self, record: str, pid: int) -> int:
        """Return a pidfd of `pid` if that process has the record open; else -1."""
        if self._own.sees(self.theirs):
            with contextlib.suppress(OSError):
                facts = os.lstat(os.path.join(self.path, record))
                return open_pidfd_of_holder(pid, facts.st_dev, facts.st_ino)
        return -1

    def open_server_pidfd(self) -> int:
        """Return the pidfd of the server, as long as its record is locked; else -1."""
        if self._own.sees(self.theirs):
            with contextlib.suppress(OSError):
                return os.pidfd_open(self.theirs.pid)
        return -1

    def open_link(self, pidfd: int, address: Address) -> Link:
        heartbeat = None
        if pidfd < 0:
            # A pid that cannot be confirmed on the same machine leaves the lock.
            silence = 0 if self._own.sees(self.theirs) else self.theirs.heartbeat_ms
            heartbeat = self._own.heartbeat_ms, silence
        self._fd = -1
        return self._spool.open_link(pidfd=pidfd, heartbeat=heartbeat, spin_us=SPIN.of(address))

    def close(self) -> None:
        self._fd = -1
        self._spool.close()


def remove(path: str) -> None:
    """Remove a connection's folder, and with the last one DIR if a server made it."""
    lib.lr_spool_remove(os.fsencode(path))


def sweep(path: str, by: Side | None = None) -> bool:
    """Remove what dead processes have left; the directory is locked.

    Return True if there are live clients that no server has accepted. A running server passes its
    own side as `by`: then folders of other kernels, whose locks may not be visible here, are kept.
    """
    waiting = False
    tokens = {
        match[1]
        for name in os.listdir(path)
        if (match := re.fullmatch(f"({TOKEN})({re.escape(REQUEST_SUFFIX)})?", name))
    }
    for token in tokens:
        folder = os.path.join(path, token)
        client, *others = (
            _lives(os.path.join(folder, record), by)
            for record in ("client", "server", "up/end", "down/end")
        )
        if not (client or any(others)):
            remove(folder)
        waiting |= client and not any(others)
    return waiting


def _lives(record: str, by: Side | None) -> bool:
    with contextlib.suppress(OSError, ValueError):
        side, lives = read_side(record)
        return lives or (by is not None and not by.is_near(side))
    return False

"""file:, a spool: files in a directory that belongs to one user, and nothing else.

A server's record, DIR/door, says that it lives. A client makes a folder of its own,
DIR/TOKEN, with what it says, and renames DIR/TOKEN/knock to DIR/TOKEN.knock. spool.c
has what lies in the folder, and who removes it. Who made a file is the kernel's word
for who that is; a pid is believed if both sides are in one PID namespace, and else
heartbeats tell of a death.
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
from localrpc.errors import AddressInUse, GreetingError, ListenError
from localrpc.options import Options
from localrpc.transports import limits, names, records
from localrpc.transports.base import (
    Connection,
    Greeting,
    Listener,
    Offer,
    PeerCredentials,
    Scope,
    Transport,
)
from localrpc.transports.credentials import identified, open_pidfd_of_holder
from localrpc.transports.greet import Road, dial_road
from localrpc.transports.media import Medium, check_whole
from localrpc.transports.meeting import (
    MeetingGreeting,
    MeetingListener,
    absent,
    encode_knock,
    gone,
    new_token,
    unreachable,
)

_logger = _log.logger("transports")

_MAGIC = "localrpc spool 1"
_TOKEN = "[0-9a-f]{16}"
_KNOCK = ".knock"
_TRIES = 10

_warned: set[str] = set()


class World(NamedTuple):
    """Where a process's pid means something: a run of a kernel, and a PID namespace."""

    boot: str
    namespace: str


def _world() -> World:
    """Empty texts where there is no /proc to say it."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return World(file.read().strip(), os.readlink("/proc/self/ns/pid"))
    except OSError:
        return World("", "")


class Side(NamedTuple):
    """What a record says of the process that made it."""

    pid: int
    world: World
    batches: bool
    """Whether it writes by rename."""
    heartbeat_ms: int

    @staticmethod
    def own(address: Address) -> Side:
        return Side(os.getpid(), _world(), address.batches, address.heartbeat_ms)

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
        """Whether a pid is the same to both."""
        return self.world == other.world and self.is_near(other)


def _read(path: str) -> tuple[Side, bool]:
    """A record, and whether its process lives. Raises OSError, ValueError."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise ValueError("not a file")
    lines, lives = records.read(path)
    return Side.parse(lines), lives


def _owner(path: str) -> PeerCredentials:
    facts = os.lstat(path)
    if not stat.S_ISREG(facts.st_mode):
        raise GreetingError(f"{path} is not a file")
    return PeerCredentials(0, facts.st_uid, facts.st_gid)


def _bell(
    address: Address, folder: str, *, batches: bool, other: str | None = None
) -> tuple[int, str]:
    """A descriptor that tells of what comes, and how. Raises OSError."""
    if not address.polls:
        try:
            return spool_bell(folder, batches=batches, other=other, interval_ms=0), "inotify"
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENOSPC):
                raise
        if str(address) not in _warned:
            _warned.add(str(address))
            _logger.warning(
                "%s: this user has no inotify instance or watch left, so files are looked at every"
                " %d ms; raise fs.inotify.max_user_instances or max_user_watches (sysctl)",
                address,
                address.interval_ms,
            )
    bell = spool_bell(folder, batches=batches, other=other, interval_ms=address.interval_ms)
    return bell, "poll"


class SpoolMedium(Medium):
    """One side of a folder; a client knocks once it has sent something, and then has `confirm`
    raise ConnectError if nobody is there to hear it."""

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
        """Takes the record, also when this fails. Raises OSError."""
        self.path = path
        self._own = own
        self.theirs = theirs
        self._confirm = confirm
        self.kind = "inotify"
        up, down = os.path.join(path, "up"), os.path.join(path, "down")
        rx, tx = (down, up) if role == lib.LR_CLIENT else (up, down)
        try:
            self._fd, self.kind = _bell(address, rx, batches=theirs.batches, other=tx)
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
            knock = os.path.join(self.path, "knock")
            os.close(os.open(knock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            os.rename(knock, self.path + _KNOCK)
            # SYNC no-lost-knock: we knock, then look for the door; the server, in
            # close(), removes the door, then looks for knocks. One that starts looks
            # at what lies there once it has made its door.
            confirm()

    def open_pidfd(self, record: str, pid: int) -> int:
        """A pidfd of `pid` if it is the one that has that record open; else -1."""
        if self._own.sees(self.theirs):
            with contextlib.suppress(OSError):
                facts = os.lstat(os.path.join(self.path, record))
                return open_pidfd_of_holder(pid, facts.st_dev, facts.st_ino)
        return -1

    def open_server_pidfd(self) -> int:
        """Of the door's owner, as long as the door is locked; else -1."""
        if self._own.sees(self.theirs):
            with contextlib.suppress(OSError):
                return os.pidfd_open(self.theirs.pid)
        return -1

    def open_link(self, pidfd: int, address: Address) -> Link:
        pulse = None
        if pidfd < 0:
            # A pid that cannot be confirmed on the same machine leaves the lock.
            silence = 0 if self._own.sees(self.theirs) else self.theirs.heartbeat_ms
            pulse = self._own.heartbeat_ms, silence
        self._fd = -1
        return self._spool.open_link(pidfd=pidfd, pulse=pulse, spin_us=address.spin_us)

    def close(self) -> None:
        self._fd = -1
        self._spool.close()


def _remove(path: str) -> None:
    """A connection's folder, and with the last one DIR if a server made that."""
    lib.lr_spool_remove(os.fsencode(path))


class _SpoolListener(MeetingListener):
    def __init__(
        self, address: Address, options: Options, path: str, own: Side, record: records.Record
    ) -> None:
        super().__init__(address, options)
        self._path = path
        self._own = own
        self._record = record
        self._given_back = False
        self._fd, _ = _bell(address, path, batches=True)

    def fileno(self) -> int:
        return self._fd

    def _read(self) -> bytes:
        """Every knock that lies there; the files are taken away."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._fd, 4096):
                pass
        knocks = []
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._path):
                if re.fullmatch(_TOKEN + re.escape(_KNOCK), name):
                    with contextlib.suppress(OSError):
                        os.unlink(os.path.join(self._path, name))
                        knocks.append(encode_knock(name.removesuffix(_KNOCK)))
        if not knocks:
            raise BlockingIOError(errno.EAGAIN, "nobody knocks")
        return b"".join(knocks)

    def _enter(self, token: str) -> Greeting:
        path = os.path.join(self._path, token)
        client = os.path.join(path, "client")
        try:
            theirs, _ = _read(client)
            owner = _owner(client)
            record = records.make(os.path.join(path, "server"), *self._own.lines())
            medium = SpoolMedium(self.address, path, lib.LR_SERVER, self._own, theirs, record)
        except FileNotFoundError:
            _remove(path)
            raise
        except ValueError:
            self._turn_away(path)
            raise OSError(errno.EINVAL, "its record is damaged") from None
        except BaseException:
            self._turn_away(path)
            raise
        return MeetingGreeting(
            medium,
            self.address,
            self._options,
            owner,
            lambda pid: medium.open_pidfd("client", pid),
        )

    def _turn_away(self, path: str) -> None:
        """Let a client see the end, without a descriptor."""
        with contextlib.suppress(OSError):
            record = os.path.join(path, "server")
            os.mknod(record, 0o600)
            os.rename(record, os.path.join(path, "down", "end"))

    def _sweep(self) -> bool:
        with names.locked(self._path, patience=0):
            return _sweep(self._path, self._own)

    def _give_back(self) -> None:
        self._given_back = True
        self._record.remove()

    def _close(self) -> None:
        self._record.close()
        fd, self._fd = self._fd, -1
        os.close(fd)
        if self._given_back:
            names.leave_directory(self._path)


class FileTransport(Transport):
    scheme = "file"

    def offers(self) -> tuple[Offer, ...]:
        return (
            Offer(
                target="file:DIR",
                scope=Scope.USER,
                direction="two one-way channels",
                technique="spool files, watched with inotify or polled",
                credentials="uid: who owns the files; pid: who has them open, by /proc",
                zero_copy=False,
                limits={
                    **limits.settings("fs/inotify", "max_user_instances", "max_user_watches"),
                    "RLIMIT_NOFILE": limits.rlimit("RLIMIT_NOFILE"),
                },
            ),
        )

    def listen(self, address: Address, options: Options) -> Listener:
        path = os.path.abspath(address.body)
        try:
            for attempt in range(_TRIES):
                try:
                    return self._listen(address, options, path)
                except FileNotFoundError:
                    # A server that goes has taken its directory with it.
                    if attempt == _TRIES - 1:
                        raise
        except OSError as error:
            raise ListenError(str(address), error.strerror or str(error)) from error
        raise AssertionError

    def _listen(self, address: Address, options: Options, path: str) -> Listener:
        names.check_directory("the spool", path, create=True)
        door = os.path.join(path, "door")
        with names.locked(path):
            try:
                _, lives = _read(door)
            except FileNotFoundError:
                pass
            except ValueError:
                reason = f"{door} exists and is not a spool's; remove it, or use another directory"
                raise ListenError(str(address), reason) from None
            else:
                if lives:
                    raise AddressInUse(str(address), names.IN_USE)
                os.unlink(door)
            own = Side.own(address)
            record = records.make(door, *own.lines())
            _sweep(path)
        try:
            return _SpoolListener(address, options, path, own, record)
        except BaseException:
            record.remove()
            raise

    def dial(self, address: Address, options: Options, deadline: float | None) -> Connection:
        path = os.path.abspath(address.body)
        with contextlib.ExitStack() as stack:
            try:
                medium, server = _connect(address, path)
                stack.enter_context(medium)
                alive = medium.open_server_pidfd()
                if alive >= 0:
                    stack.callback(os.close, alive)
                # A lock that is held now says that the pid was the server's; one that is
                # not, that it has died before it could be watched.
                _find(address, path)
            except OSError as error:
                raise unreachable(address, error.strerror or str(error)) from None
            road = Road(
                connect=lambda until: medium,
                identify=lambda medium: server,
                peer_name=f"unix:{address.body}",
                watch=lambda medium, peer, hello: identified(
                    peer, hello.pid, lambda pid: medium.open_pidfd("server", pid)
                ),
                alive=lambda: alive if alive >= 0 else None,
            )
            return dial_road(road, address, options, deadline)


def _find(address: Address, path: str) -> tuple[Side, PeerCredentials]:
    """A server that lives, and whose it is. Raises ConnectError, OSError."""
    door = os.path.join(path, "door")
    try:
        side, lives = _read(door)
        facts = os.lstat(door)
    except FileNotFoundError:
        raise absent(address, path) from None
    except ValueError:
        raise unreachable(address, f"{door} is not a spool's") from None
    if not lives:
        raise gone(address, path)
    return side, PeerCredentials(0, facts.st_uid, facts.st_gid)


def _connect(address: Address, path: str) -> tuple[SpoolMedium, PeerCredentials]:
    """A folder of our own, and who the server is. Raises ConnectError, OSError."""
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
                medium = SpoolMedium(
                    address,
                    folder,
                    lib.LR_CLIENT,
                    own,
                    theirs,
                    record,
                    confirm=lambda: _find(address, path),
                )
            except BaseException:
                _remove(folder)
                raise
    except FileNotFoundError:
        _find(address, path)  # raises, because a server that goes takes its directory with it
        raise
    return medium, server


def _sweep(path: str, by: Side | None = None) -> bool:
    """Remove what dead processes have left; the directory is locked.

    Whether there are clients who live, and whom no server has taken in. A server
    that is in use has it done `by` its side, which spares those of other kernels:
    their locks may not be seen from here.
    """
    waiting = False
    tokens = {
        match[1]
        for name in os.listdir(path)
        if (match := re.fullmatch(f"({_TOKEN})({re.escape(_KNOCK)})?", name))
    }
    for token in tokens:
        folder = os.path.join(path, token)
        client, *others = (
            _lives(os.path.join(folder, record), by)
            for record in ("client", "server", "up/end", "down/end")
        )
        if not (client or any(others)):
            _remove(folder)
        waiting |= client and not any(others)
    return waiting


def _lives(record: str, by: Side | None) -> bool:
    with contextlib.suppress(OSError, ValueError):
        side, lives = _read(record)
        return lives or (by is not None and not by.is_near(side))
    return False

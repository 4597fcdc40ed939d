"""Names in the file system: where they live, how they are taken, reclaimed and given back.

Taking and giving back happen under a lock on the directory itself, so that no
lock file is left behind, and no process sees a socket between bind and listen.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from localrpc._later import Later
from localrpc.errors import AddressInUse, ListenError
from localrpc.options import Options
from localrpc.transports.targets import SUN_PATH_MAX

if TYPE_CHECKING:
    import socket
else:
    socket = Later("socket")

_LOCK_PATIENCE = 10.0
"""Seconds."""
_BACKLOG = 1024

Identity = tuple[int, int]
"""Device and inode of a socket's name."""


class DirectoryRefused(OSError):
    """A runtime directory that cannot be trusted or used; the text names it and the fix."""


def runtime_directory() -> str:
    """Return the same path for every process of a user, whatever XDG_RUNTIME_DIR or TMPDIR say."""
    return os.environ.get("LOCALRPC_RUNTIME_DIR") or f"/tmp/localrpc-{os.geteuid()}"


def shm_path(name: str) -> str:
    """Return the socket of shm:NAME; a name that is a path is its own."""
    return name if name.startswith("/") else os.path.join(runtime_directory(), f"{name}.shm")


def check_path(path: str) -> None:
    """Raises DirectoryRefused when the whole path is too long for a socket."""
    size = len(os.fsencode(path))
    if size > SUN_PATH_MAX:
        raise DirectoryRefused(
            errno.ENAMETOOLONG,
            f"{path} is {size} bytes long, and a Unix socket's name has at most {SUN_PATH_MAX};"
            " use a shorter name, or a shorter LOCALRPC_RUNTIME_DIR",
        )


def check_runtime_directory(*, create: bool) -> str:
    """Return the runtime directory, which belongs to this user alone.

    Raises DirectoryRefused when it belongs to another user, is open to others
    or cannot be made, FileNotFoundError when it is not there and `create` is
    false.
    """
    path = runtime_directory()
    directory = _Directory("the runtime directory", path, *_RUNTIME_FIXES)
    if not path.startswith("/"):
        raise directory.refused(
            errno.EINVAL, "is not absolute; give LOCALRPC_RUNTIME_DIR a full path"
        )
    if create:
        directory.make()
    directory.check(may_be_link="LOCALRPC_RUNTIME_DIR" in os.environ)
    return path


def check_directory(what: str, path: str, *, create: bool) -> None:
    """Check any other directory; one that is created is marked for leave_directory()."""
    directory = _Directory(what, path, "use another directory", "choose another directory")
    if create:
        directory.make(_MARK)
    directory.check(may_be_link=True)


def leave_directory(path: str) -> None:
    """Remove it if check_directory() has made it and nothing is in it; never raises OSError.

    The mark is in the directory itself, so that a kill at any moment loses neither.
    """
    with contextlib.suppress(OSError):
        if os.lstat(path).st_mode & _MARK:
            os.rmdir(path)


_MARK = stat.S_ISVTX
"""The sticky bit: without meaning where only one user can write."""


_RUNTIME_FIXES = (
    "remove it, or set LOCALRPC_RUNTIME_DIR to a directory of your own",
    "set LOCALRPC_RUNTIME_DIR to a directory that can",
)


class _Directory(NamedTuple):
    """A directory that is to be its user's alone; every method raises DirectoryRefused."""

    what: str
    path: str
    fix: str
    fix_making: str

    def refused(self, number: int | None, why: str) -> DirectoryRefused:
        return DirectoryRefused(number or errno.EPERM, f"{self.what} {self.path} {why}")

    def make(self, mark: int = 0) -> None:
        try:
            os.mkdir(self.path, 0o700 | mark)
        except FileExistsError:
            return
        except OSError as error:
            raise self.refused(
                error.errno, f"cannot be made: {error.strerror}; {self.fix_making}"
            ) from None
        # A umask of 0777 is not meant for such a directory.
        os.chmod(self.path, 0o700 | mark)

    def check(self, *, may_be_link: bool) -> None:
        """Raises FileNotFoundError when it is not there."""
        try:
            facts = os.lstat(self.path)
            if stat.S_ISLNK(facts.st_mode) and may_be_link:
                facts = os.stat(self.path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self.refused(error.errno, f"cannot be used: {error.strerror}") from None
        if not stat.S_ISDIR(facts.st_mode):
            raise self.refused(errno.ENOTDIR, f"is not a directory; {self.fix}")
        if facts.st_uid != os.geteuid():
            raise self.refused(
                errno.EPERM, f"belongs to uid {facts.st_uid}, not to {os.geteuid()}; {self.fix}"
            )
        if facts.st_mode & 0o077:
            raise self.refused(
                errno.EPERM,
                f"is open to others (mode {stat.S_IMODE(facts.st_mode):04o}); run chmod 700 on it",
            )


_patience = _LOCK_PATIENCE


@contextlib.contextmanager
def patience_of(seconds: float) -> Iterator[None]:
    """Within the block names are taken and given back only as fast as this: for a process with one
    thread, which has others to look after."""
    global _patience
    before, _patience = _patience, seconds
    try:
        yield
    finally:
        _patience = before


@contextlib.contextmanager
def locked(directory: str, *, patience: float | None = None) -> Iterator[None]:
    """Raise TimeoutError if another process keeps it for `patience` seconds, 10 by default."""
    patience = _patience if patience is None else patience
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        until = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # Not a blocking flock: its holder may be stopped, or hostile.
                if time.monotonic() >= until:
                    raise TimeoutError(
                        errno.ETIMEDOUT,
                        f"another process has kept the directory {directory} locked for"
                        f" {patience:g} s",
                    ) from None
                time.sleep(0.002)
        try:
            yield
        finally:
            # By name and not only by close: a child forked meanwhile shares the lock.
            fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)


class Permissions(NamedTuple):
    """Who may open the file of a socket."""

    mode: int
    """It lets the owner read and write."""
    group: int | None = None
    """None: the one that the system gives to new files."""


PRIVATE = Permissions(0o600)
OPEN_TO_ALL = Permissions(0o666)
"""Every user may connect, and is to be asked who it is."""


def permissions_for(options: Options) -> Permissions:
    return OPEN_TO_ALL if options.access.others else PRIVATE


def take(path: str, target: str, permissions: Permissions) -> tuple[socket.socket, Identity]:
    """Return a socket that listens under `path`, which was free or a dead server's.

    Before it listens its file has these permissions, whatever the umask, and never wider ones.
    Raises AddressInUse for a live server's, ListenError for everything else.
    """
    directory = os.path.dirname(path) or "."
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with locked(directory):
            _clear(path, target)
            # The name gets the socket's own mode: without the umask, and never open to others.
            os.fchmod(sock.fileno(), 0o600)
            sock.bind(path)
            facts = os.lstat(path)
            identity = facts.st_dev, facts.st_ino
            try:
                if Permissions(stat.S_IMODE(facts.st_mode)) != permissions:
                    _set_permissions(path, identity, permissions, target)
                sock.listen(_BACKLOG)
            except BaseException:
                _remove(path, identity)
                raise
    except OSError as error:
        sock.close()
        raise ListenError(target, _bind_reason(path, directory, error)) from error
    except BaseException:
        sock.close()
        raise
    return sock, identity


def _set_permissions(path: str, identity: Identity, permissions: Permissions, target: str) -> None:
    """Set them despite the umask, but not of a file that has replaced the socket."""
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        facts = os.fstat(fd)
        if (facts.st_dev, facts.st_ino) != identity:
            raise OSError(errno.EBUSY, "another process has taken the name meanwhile")
        if permissions.group is not None:
            _set_group(fd, permissions.group, path, target)
        os.chmod(f"/proc/self/fd/{fd}", permissions.mode)  # the wider mode after the group
    finally:
        os.close(fd)


def _set_group(fd: int, group: int, path: str, target: str) -> None:
    try:
        os.chown(f"/proc/self/fd/{fd}", -1, group)
    except OSError as error:
        raise ListenError(
            target,
            f"{path} cannot be given to the group {group}: {error.strerror}; run the server as a"
            " member of that group, or as root",
        ) from None


def _bind_reason(path: str, directory: str, error: OSError) -> str:
    reason = error.strerror or str(error)
    if error.errno == errno.ENOENT:
        return f"the directory {directory} does not exist; make it first"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"the directory {directory} cannot be written: {reason}; choose another"
    return f"{path}: {reason}"


def take_abstract(name: str, target: str) -> socket.socket:
    """As take(); an abstract name vanishes with its socket."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.bind(b"\0" + os.fsencode(name))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(target, IN_USE) from None
        raise ListenError(target, error.strerror or str(error)) from error
    return sock


IN_USE = "a live server already listens there; stop it, or use another name"


def _clear(path: str, target: str) -> None:
    """Remove a dead server's socket; never anything else."""
    try:
        facts = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(facts.st_mode):
        raise ListenError(
            target, f"{path} exists and is not a socket; remove it, or use another name"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        number = probe.connect_ex(path)
    if number == errno.ECONNREFUSED:
        os.unlink(path)
    elif number in (0, errno.EAGAIN, errno.EINPROGRESS):
        raise AddressInUse(target, IN_USE)
    elif number != errno.ENOENT:
        raise ListenError(
            target,
            f"{path} is another user's socket ({os.strerror(number)}, owner uid {facts.st_uid});"
            " remove it, or use another name",
        )


def release_name(path: str, identity: Identity) -> None:
    """Remove the name if it is still the socket that take() made; never raises OSError."""
    with contextlib.suppress(OSError), locked(os.path.dirname(path) or "."):
        _remove(path, identity)


def _remove(path: str, identity: Identity) -> None:
    with contextlib.suppress(OSError):
        facts = os.lstat(path)
        if (facts.st_dev, facts.st_ino) == identity:
            os.unlink(path)


def listening(suffix: str) -> list[str]:
    """Return the names of this user's sockets in the runtime directory that listen, without suffix
    and without those of single workers beside their group's.

    proc_net(5) lists the sockets of this network namespace; a flag of 0x10000 is SO_ACCEPTCON.
    """
    begin = os.path.join(runtime_directory(), "")
    found = {
        path[len(begin) : -len(suffix)]
        for path, flags, _ in _unix_sockets()
        if flags == "00010000" and path.startswith(begin) and path.endswith(suffix)
    }
    return [
        name
        for name in found
        if "/" not in name
        and not (re.search(r"\.[1-9][0-9]*$", name) and name.rpartition(".")[0] in found)
    ]


def bound() -> set[str]:
    """Return the paths of sockets of this network namespace that listen, or may still come to."""
    return {path for path, _, state in _unix_sockets() if state == "01"}  # SS_UNCONNECTED


def _unix_sockets() -> Iterator[tuple[str, str, str]]:
    """Yield path, flags and state of each Unix socket with a name."""
    with contextlib.suppress(OSError), open("/proc/net/unix", errors="surrogateescape") as table:
        for line in table:
            fields = line.rstrip("\n").split(maxsplit=7)
            if len(fields) == 8:
                yield fields[7], fields[3], fields[5]


class BoundSocket(NamedTuple):
    """A listening socket; other processes that it is passed to can serve it as `fd:`."""

    sock: socket.socket
    path: str | None = None
    """Its name in the file system, if it has one."""
    identity: Identity = (0, 0)
    port: int = 1
    """Where there is one, else grpcio's 1."""

    def release(self) -> None:
        """Remove the name, if it is still this socket's. Idempotent.

        To be called while the socket is open: its inode must not belong to another.
        """
        if self.path is not None:
            release_name(self.path, self.identity)

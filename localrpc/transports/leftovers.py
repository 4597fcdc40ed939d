"""What processes that have ended have left in the runtime directory and in memory.

A server removes this when it starts; here it is found, and removed, without one. A name is live
if its server may be: one that is stopped, is busy, or is in another namespace is never touched.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from localrpc._core import sysv as segments
from localrpc.transports import memory, names, records

_PATIENCE = 1.0
"""Seconds that another process may keep the runtime directory locked."""


class Leftover(NamedTuple):
    """A name or key that no living process uses any more."""

    target: str
    """The target that it belonged to; empty for memory, which belongs to one connection."""
    kind: str
    """What it is, such as "socket"."""
    place: str
    """Its path, or the segment's name or id."""


Remove = Callable[[], object]


def leftovers() -> list[Leftover]:
    """Return what is left over, and change nothing.

    Raises OSError, a TimeoutError among them, whose text says why it cannot be looked for.
    """
    with _all() as found:
        return [each for each, _ in found]


def remove_leftovers() -> list[tuple[Leftover, OSError | None]]:
    """Remove all of it; return each with the error, if there was one. Raises OSError, as above."""
    done: list[tuple[Leftover, OSError | None]] = []
    with _all() as found:
        for each, remove in found:
            try:
                remove()
            except FileNotFoundError:
                continue  # another process has removed it
            except OSError as error:
                done.append((each, error))
            else:
                done.append((each, None))
    return done


@contextlib.contextmanager
def _all() -> Iterator[Iterator[tuple[Leftover, Remove]]]:
    """Within the block no localrpc process takes a name in the runtime directory."""
    with contextlib.ExitStack() as stack:
        found = [_in_memory()]
        with contextlib.suppress(FileNotFoundError):  # no server has been started
            directory = names.check_runtime_directory(create=False)
            stack.enter_context(names.locked(directory, patience=_PATIENCE))
            found.insert(0, _in_directory(directory))
        yield (each for part in found for each in part)


def _in_directory(directory: str) -> Iterator[tuple[Leftover, Remove]]:
    bound = names.bound()
    entries = sorted(os.listdir(directory))
    # The FIFOs of a client exist before anything reads them: its record says if they are in use.
    recorded = {
        fifo
        for name in entries
        if name.endswith(records.SUFFIX)
        for fifo in _fifos(os.path.join(directory, name))
    }
    for name in entries:
        path = os.path.join(directory, name)
        with contextlib.suppress(OSError):
            mode = os.lstat(path).st_mode
            found: tuple[Leftover, Remove] | None = None
            if stat.S_ISSOCK(mode):
                if path not in bound and _refuses(path):
                    found = _socket(name, path), partial(os.unlink, path)
            elif stat.S_ISFIFO(mode):
                if path not in recorded and _is_unread(path):
                    found = Leftover(f"pipe:{path}", "FIFO", path), partial(os.unlink, path)
            elif stat.S_ISREG(mode):
                found = _recorded(name, path)
            if found is not None:
                yield found


def _socket(name: str, path: str) -> Leftover:
    plain = name.removesuffix(".shm")
    return Leftover(f"unix:{path}" if plain == name else f"shm:{plain}", "socket", path)


def _refuses(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        return probe.connect_ex(path) == errno.ECONNREFUSED


def _is_unread(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW))
    except OSError as error:
        return error.errno == errno.ENXIO
    return False


def _recorded(name: str, path: str) -> tuple[Leftover, Remove] | None:
    """Return what the record of a dead process says that it has made. Raises OSError."""
    server = name
    if name.endswith(records.SUFFIX):
        server = name.removesuffix(records.SUFFIX).rpartition(".")[0]
    of_client = "" if server == name else ", of a connection"
    plain, _, scheme = server.rpartition(".")
    if scheme in ("mq", "sysvmq"):
        kind = "POSIX queue" if scheme == "mq" else "System V queue"
        left = Leftover(f"{scheme}:{plain}", kind + of_client, path)
        remove: Remove = partial(_clear_queues, scheme, path)
    elif of_client and _fifos(path):
        fifo = os.path.join(os.path.dirname(path), server)
        left = Leftover(f"pipe:{fifo}", "FIFOs" + of_client, path)
        remove = partial(records.clear, path, lambda _: _remove_fifos(path))
    else:
        return None
    return None if records.read(path)[1] else (left, remove)


def _clear_queues(scheme: str, path: str) -> None:
    if scheme == "mq":
        from localrpc.transports import mq, posix

        posix.load()  # without it the queue would stay, and its record be gone
        mq.registered.clear(path)
    else:
        from localrpc.transports import sysvmq

        sysvmq.registered.clear(path)


def _fifos(record: str) -> list[str]:
    """Return the paths of the two that a client of pipe:PATH has a record of; none for others.

    What the record itself says is relative to its client's folder, if the target was.
    """
    begin = record.removesuffix(records.SUFFIX)
    both = [f"{begin}.up", f"{begin}.down"]
    with contextlib.suppress(OSError):
        lines, _ = records.read(record)
        if [os.path.basename(line) for line in lines] == [os.path.basename(end) for end in both]:
            return both
    return []


def _remove_fifos(record: str) -> None:
    for path in _fifos(record):
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISFIFO(os.lstat(path).st_mode):
                os.unlink(path)


def _in_memory() -> Iterator[tuple[Leftover, Remove]]:
    for name in memory.abandoned_names():
        yield Leftover("", "POSIX memory", name), partial(memory.unlink, name)
    for segment in memory.abandoned_segments():
        left = Leftover("", "System V memory", str(segment))
        yield left, partial(segments.remove, segment)

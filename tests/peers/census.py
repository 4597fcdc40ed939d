"""What this process and its test run hold: to be the same before and after."""

from __future__ import annotations

import gc
import os
import re
import threading
from collections import Counter
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from tests import own_ipc
from tests.peers.journal import PATIENCE

RING = r"localrpc-ring|/dev/shm/localrpc-|/SYSV6c72"
"""In /proc/PID/maps: a mapping of a ring, of any kind of memory."""

started: set[str] = set()
"""Processes of this run, also those that are dead."""


class Census(NamedTuple):
    """Each thing by its name, counted, so that a difference can be read."""

    descriptors: Counter[str]
    threads: Counter[str]
    tasks: int
    mappings: int
    names: Counter[str]
    shared_memory: frozenset[str]
    posix_queues: Counter[str]
    sysv_queues: int
    sysv_segments: int
    sockets: Counter[str]
    processes: frozenset[str]


def take() -> Census:
    runtime = os.environ["LOCALRPC_RUNTIME_DIR"]
    ours = _processes(runtime)
    return Census(
        _descriptors(),
        Counter(thread.name for thread in threading.enumerate()),
        len(os.listdir("/proc/self/task")),
        len(re.findall(RING, Path("/proc/self/maps").read_text())),
        _names(runtime),
        _shared_memory(),
        _posix_queues(),
        _sysv("msg"),
        _sysv("shm"),
        _sockets(runtime),
        ours,
    )


def await_same(before: Census) -> None:
    """Wait until there is nothing that was not there before. Raises AssertionError."""
    until = monotonic() + PATIENCE
    pause = threading.Event()
    while more := difference(before, take()):
        assert monotonic() < until, f"left over: {more}"
        gc.collect()  # a thread that has just ended may have held the last reference
        pause.wait(0.02)


def difference(before: Census, after: Census) -> dict[str, object]:
    more: dict[str, object] = {}
    each: Any
    for field, *each in zip(Census._fields, before, after, strict=True):
        old, new = each
        excess = new - old
        if excess if not isinstance(excess, int) else excess > 0:
            more[field] = excess
    return more


def _descriptors() -> Counter[str]:
    found: Counter[str] = Counter()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the one that lists
        # A socket or pipe by its kind, without its number; anon_inode:[eventfd] whole.
        found[_nameless(re.sub(r":\[\d+\]$| \(deleted\)$", "", target))] += 1
    return found


def _nameless(name: str) -> str:
    """Without the token of one client, and the numbers of a spool's files."""
    return re.sub("(up|down)/[0-9]+$", r"\1/N", re.sub("[0-9a-f]{16}", "", name))


def _names(runtime: str) -> Counter[str]:
    """Sockets, FIFOs, spool folders and what is in them."""
    found: Counter[str] = Counter()
    for folder, folders, files in os.walk(runtime):
        found.update(
            _nameless(os.path.relpath(f"{folder}/{name}", runtime)) for name in folders + files
        )
    return found


def _shared_memory() -> frozenset[str]:
    """Of this run: without a separate /dev/shm, what this process has made."""
    prefix = "localrpc-" if own_ipc.posix_queues else f"localrpc-{_namespace()}-{os.getpid()}-"
    return frozenset(name for name in os.listdir("/dev/shm") if name.startswith(prefix))


def _namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _posix_queues() -> Counter[str]:
    """They do not say whose they are, so only in a namespace of this run's own."""
    names = os.listdir(own_ipc.posix_queues) if own_ipc.posix_queues else ()
    return Counter(_nameless(name) for name in names)


def _sysv(table: str) -> int:
    """How many there are; they do not say whose either."""
    if own_ipc.posix_queues is None:
        return 0
    return len(Path(f"/proc/sysvipc/{table}").read_text().splitlines()) - 1


def _sockets(runtime: str) -> Counter[str]:
    """Unix sockets of any process under this run's names."""
    paths = [line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return Counter(path for path in paths if path.startswith((runtime, f"@lrt{os.getpid()}-")))


def _processes(runtime: str) -> frozenset[str]:
    """Processes of this run: its runtime directory is in their environment."""
    marker = f"LOCALRPC_RUNTIME_DIR={runtime}".encode()
    found = set()
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            environment = Path(f"/proc/{entry}/environ").read_bytes()
        except OSError:
            continue
        if marker in environment.split(b"\0"):
            found.add(entry)
    return frozenset(found)

"""The processes of this machine that have a page, found through /proc."""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Iterator
from typing import NamedTuple

from localrpc.observe.layout import ENTRIES, ENTRY_SIZE, HEADER, Page, owner, parse

_LINK = "/memfd:localrpc (deleted)"
_TICKS = os.sysconf("SC_CLK_TCK")

STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "waiting for a disk",
    "T": "stopped",
    "t": "traced",
    "Z": "ended, and not yet waited for",
    "I": "idle",
}
"""What the letters of /proc/PID/stat mean (man 5 proc_pid_stat)."""


class Process(NamedTuple):
    """A process, what the kernel says of it, and what it says of itself."""

    pid: int
    """In the namespace of the process that asks."""
    uid: int
    """Its effective user."""
    command: str
    """Its arguments with spaces between them; its name in brackets if it has none."""
    state: str
    """The kernel's letter: one of STATES."""
    threads: int
    """Of any kind, now."""
    memory: int
    """Bytes of memory of its own (RssAnon): not files, nor memory that it shares, as rings are."""
    processor: float
    """Seconds of processor time that it has used."""
    page: Page
    """What it has counted."""


def own() -> Page | None:
    """Return the page of this process; None if it has no server and no channel. Never raises."""
    from localrpc._core import ffi, lib

    page = lib.lr_own_page()
    if page == ffi.NULL:
        return None
    memory = ffi.buffer(page, (ENTRIES + 1) * ENTRY_SIZE)
    return parse(lambda offset, size: bytes(memory[offset : offset + size]))


def processes() -> Iterator[Process]:
    """Yield the processes with a page that this user may look into, lowest pid first.

    They are all of its own, or for root all. One that ends meanwhile is left out. Raises OSError
    only where there is no /proc.
    """
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        if (found := process(pid)) is not None:
            yield found


def process(pid: int) -> Process | None:
    """Return what can be seen of one process.

    `pid` is its number. None if it has no page, has ended, or is another user's. Raises nothing.
    """
    try:
        return _look(pid)
    except OSError:
        return None


def _look(pid: int) -> Process | None:
    folder = f"/proc/{pid}"
    status: dict[str, str] = {}
    page = None
    for name in os.listdir(f"{folder}/fd"):
        try:
            if os.readlink(f"{folder}/fd/{name}") != _LINK:
                continue
            status = status or _fields(f"{folder}/status")
            page = _read(f"{folder}/fd/{name}", int(status.get("NSpid", str(pid)).split()[-1]))
        except OSError:  # closed meanwhile
            continue
        if page is not None:
            break
    if page is None:
        return None
    with open(f"{folder}/stat", errors="replace") as file:
        facts = file.read().rpartition(")")[2].split()
    return Process(
        pid,
        os.stat(folder).st_uid,
        _command(folder, status),
        state=facts[0],
        threads=int(status.get("Threads", "0")),
        memory=int(status.get("RssAnon", "0 kB").split()[0]) * 1024,
        processor=(int(facts[11]) + int(facts[12])) / _TICKS,
        page=page,
    )


def _read(path: str, pid: int) -> Page | None:
    """Return the page of that process; None if it is another's, or a file that only has the name.

    Such a file may be a FIFO, which would block, and there may be very many.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if not modes.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        if owner(os.pread(descriptor, HEADER.size, 0)) != pid:
            return None
        return parse(lambda offset, size: os.pread(descriptor, size, offset))
    finally:
        os.close(descriptor)


def _fields(path: str) -> dict[str, str]:
    with open(path, errors="replace") as file:
        pairs = (line.partition(":") for line in file)
        return {name: value.strip() for name, _, value in pairs}


def _command(folder: str, status: dict[str, str]) -> str:
    with open(f"{folder}/cmdline", errors="replace") as file:
        arguments = file.read().rstrip("\0").replace("\0", " ")
    return arguments or f"[{status.get('Name', '')}]"

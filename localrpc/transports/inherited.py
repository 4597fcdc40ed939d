"""What a child process has from its parent: the ends of two pipes, for one connection.

A child that was forked finds them here, one that was started in the environment:
LOCALRPC_PIPE=RX,TX,KEEP names the descriptors to read, to write, and to keep
open (see PipeMedium).
"""

from __future__ import annotations

import os
import stat
import threading
from typing import NamedTuple

from localrpc.address import Address
from localrpc.errors import ListenError
from localrpc.options import Options
from localrpc.transports import limits
from localrpc.transports.base import (
    Greeting,
    Listener,
    Offer,
    PeerCredentials,
    Scope,
)
from localrpc.transports.credentials import identified, open_pidfd_of_holder
from localrpc.transports.door import forget_after_fork
from localrpc.transports.greet import Road
from localrpc.transports.media import Descriptors, PipeMedium, grow_pipe
from localrpc.transports.meeting import MeetingGreeting
from localrpc.transports.once import Once

ENVIRONMENT = "LOCALRPC_PIPE"
NO_SERVER = (
    "pipe: without a path is between a parent and its child; make the channel with"
    " localrpc.spawn_channel or localrpc.fork_channel, or name a FIFO: pipe:PATH"
)
_NOT_INHERITED = (
    "this process has no pipe from a parent: start it with localrpc.spawn_channel, or name a"
    " FIFO: pipe:PATH"
)
PIPE_SIZE = 1 << 20
"""Bytes each pipe is grown to."""


class Ends(NamedTuple):
    """One side's descriptors."""

    rx: int
    tx: int
    keep: int


class Pair(NamedTuple):
    """Two pipes: the parent's side, and the child's."""

    parent: Ends
    child: Ends

    def close(self) -> None:
        for fd in (*self.parent, *self.child):
            os.close(fd)


_given: Ends | None = None
"""What the parent left to this process when it forked it."""

making = threading.Lock()
"""Held from make_pair() until only one side is open here: a child must not get a sibling's."""


def limits_of_pipes() -> dict[str, int]:
    return {
        **limits.settings("fs", "pipe-max-size", "pipe-user-pages-soft", "pipe-user-pages-hard"),
        "RLIMIT_NOFILE": limits.rlimit("RLIMIT_NOFILE"),
    }


def offer() -> Offer:
    return Offer(
        target="pipe:",
        scope=Scope.FAMILY,
        direction="two one-way channels",
        technique="pipes inherited from the parent, by fork or spawn",
        credentials="who has the pipes is who was given them; pid, uid: by /proc",
        zero_copy=False,
        limits=limits_of_pipes(),
    )


def make_pair() -> Pair:
    """Raises OSError."""
    with Descriptors() as fds:
        up_read, up_write = os.pipe2(os.O_CLOEXEC)
        fds.add(up_read, up_write)
        down_read, down_write = os.pipe2(os.O_CLOEXEC)
        fds.add(down_read, down_write)
        grow_pipe(up_write, PIPE_SIZE)
        grow_pipe(down_write, PIPE_SIZE)
        keep_up, keep_down = fds.add(os.dup(up_read)), fds.add(os.dup(down_read))
        fds.take()
    return Pair(Ends(down_read, up_write, keep_up), Ends(up_read, down_write, keep_down))


def leave_to_this_process(ends: Ends) -> None:
    """In a forked child: add_insecure_port("pipe:") will take these."""
    global _given
    _given = ends


def _take() -> Ends:
    """Raises ValueError when there are none, or not what they should be."""
    global _given
    given, _given = _given, None
    if given is not None:
        return given
    # Nobody else is to take them, least of all a child of this process.
    text = os.environ.pop(ENVIRONMENT, "")
    if not text:
        raise ValueError(_NOT_INHERITED)
    try:
        ends = Ends(*map(int, text.split(",")))
        if not all(stat.S_ISFIFO(os.fstat(fd).st_mode) for fd in ends):
            raise OSError
    except (ValueError, TypeError, OSError):
        raise ValueError(
            f"{ENVIRONMENT}={text} does not name three pipes of this process"
        ) from None
    for fd in ends:
        os.set_inheritable(fd, False)
    return ends


def _owner(fd: int) -> PeerCredentials:
    facts = os.fstat(fd)
    return PeerCredentials(0, facts.st_uid, facts.st_gid)


def _open_pidfd(fd: int, pid: int) -> int:
    facts = os.fstat(fd)
    return open_pidfd_of_holder(pid, facts.st_dev, facts.st_ino)


class _ParentGreeting(MeetingGreeting):
    """The parent: whoever gave us the pipes may call us, whatever its user."""

    def objection(self, peer: PeerCredentials) -> str | None:
        return None


class _InheritedListener(Listener):
    """Brings the parent, once."""

    single = True

    def __init__(self, address: Address, options: Options, ends: Ends) -> None:
        self.address = address
        self._options = options
        self._ends: Ends | None = ends
        self._ready = os.eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        forget_after_fork(self)

    def fileno(self) -> int:
        return self._ready

    def accept(self) -> list[Greeting]:
        ends, self._ends = self._ends, None
        if ends is None:
            return []
        os.eventfd_read(self._ready)
        return [
            _ParentGreeting(
                PipeMedium(*ends),
                self.address,
                self._options,
                _owner(ends.rx),
                lambda pid: _open_pidfd(ends.rx, pid),
            )
        ]

    def close(self) -> None:
        self.forget()

    def forget(self) -> None:
        ends, self._ends = self._ends, None
        for fd in ends or ():
            os.close(fd)
        ready, self._ready = self._ready, -1
        if ready >= 0:
            os.close(ready)


def listen(address: Address, options: Options) -> Listener:
    try:
        return _InheritedListener(address, options, _take())
    except ValueError as error:
        raise ListenError(str(address), str(error)) from None


class ToChild(Once[PipeMedium]):
    """Greets one child; `ending` is what has become of it, for the error of a later call."""

    scheme = "pipe"

    def __init__(self, ends: Ends, pid: int, address: Address, options: Options) -> None:
        self._pid = pid
        self.ending = ""
        rx = ends.rx
        super().__init__(
            Road(
                connect=lambda until: PipeMedium(*ends),
                identify=lambda medium: _owner(rx),
                peer_name=f"unix:pid={pid}",
                objection=lambda peer, options: None,
                # A wrapper may stand between us and who really answers.
                watch=lambda medium, peer, hello: identified(
                    peer, hello.pid, lambda pid: _open_pidfd(rx, pid)
                ),
            ),
            address,
            options,
        )

    def describe(self, reason: str) -> str:
        return f"the child process {self._pid} is gone: {self.ending or reason}"

    def describe_wait(self) -> str:
        return f"the child {self._pid} has not answered yet"

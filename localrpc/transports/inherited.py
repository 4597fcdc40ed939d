"""What a child process has from its parent: the ends of two pipes, for one connection.

A child that was forked finds them here, one that was started in the environment:
LOCALRPC_PIPE=RX,TX,KEEP names the descriptors to read, to write, and to keep
open (see PipeChannel).
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from typing import NamedTuple

from localrpc import _locks
from localrpc.address import Address
from localrpc.errors import ListenError
from localrpc.options import Options
from localrpc.transports import limits
from localrpc.transports.base import (
    Admission,
    Greeting,
    Listener,
)
from localrpc.transports.byte_channels import Descriptors, PipeChannel, grow_pipe
from localrpc.transports.credentials import identified, maker_of, open_pidfd_of_sharer
from localrpc.transports.forks import forget_after_fork
from localrpc.transports.handshake_client import ClientSide
from localrpc.transports.handshake_server import ServerGreeting, ServerSide
from localrpc.transports.once import Once
from localrpc.transports.scheme import Kind, Scope

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
_LAST_WORDS = 1.0
"""Seconds to wait for a child's exit status once its pipes have ended."""


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


def _after_fork_in_child() -> None:
    global making
    making = threading.Lock()  # a thread that is not here may hold it


os.register_at_fork(after_in_child=_after_fork_in_child)


def limits_of_pipes() -> dict[str, int]:
    return {
        **limits.settings("fs", "pipe-max-size", "pipe-user-pages-soft", "pipe-user-pages-hard"),
        "RLIMIT_NOFILE": limits.rlimit("RLIMIT_NOFILE"),
    }


KIND = Kind(
    form="",
    spellings={
        "pipe:": "the pipes that a parent left to this process: see [Children](#children-pipe)"
    },
    scope=Scope.FAMILY,
    direction="two one-way channels",
    technique="pipes inherited from the parent, by fork or spawn",
    credentials="no other process holds the pipes; pid, uid: from /proc",
    limits=limits_of_pipes,
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
    """Note the pipes in a forked child, for add_insecure_port("pipe:")."""
    global _given
    _given = ends


def _take() -> Ends:
    """Raises ValueError when there are none, or not what they should be."""
    global _given
    given, _given = _given, None
    if given is not None:
        return given
    # No other code may take them, least of all a child of this process.
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


class _InheritedListener(Listener):
    """Brings the parent, once: the process that passed the pipes may call, whatever its user."""

    def __init__(
        self, address: Address, options: Options, admission: Admission, ends: Ends
    ) -> None:
        self.address = address
        self._options = options
        self._admission = admission
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
        side = ServerSide[PipeChannel](
            identify=lambda channel: maker_of(ends.rx),
            watch=lambda channel, peer, hello: identified(
                peer, hello.pid, lambda pid: open_pidfd_of_sharer(pid, ends.rx)
            ),
            objection=lambda channel, peer, options: None,
            single=True,
        )
        channel = PipeChannel(*ends)
        return [ServerGreeting(channel, side, self.address, self._options, self._admission)]

    def close(self) -> None:
        self.forget()

    def forget(self) -> None:
        ends, self._ends = self._ends, None
        for fd in ends or ():
            os.close(fd)
        ready, self._ready = self._ready, -1
        if ready >= 0:
            os.close(ready)


def listen(address: Address, options: Options, admission: Admission) -> Listener:
    try:
        return _InheritedListener(address, options, admission, _take())
    except ValueError as error:
        raise ListenError(str(address), str(error)) from None


class ToChild(Once[PipeChannel]):
    """A parent's only connection, to a child that may tell how it has ended."""

    foreign = "it is another process's child"

    def __init__(self, ends: Ends, pid: int, address: Address, options: Options) -> None:
        super().__init__(address)
        self._pid = pid
        self._ending = ""
        # What this process has of the pipes, until a channel takes the connection.
        self._ends = {fd: os.fstat(fd).st_ino for fd in ends}
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        forget_after_fork(self)
        channel = PipeChannel(*ends)
        side = ClientSide(
            connect=lambda attempt: channel,
            identify=lambda channel: maker_of(ends.rx),
            peer_name=f"unix:pid={pid}",
            objection=lambda peer, options: None,
            # There may be a wrapper process between this one and the server.
            watch=lambda channel, peer, hello: identified(
                peer, hello.pid, lambda pid: open_pidfd_of_sharer(pid, ends.rx)
            ),
            alive=lambda: self._stop,
        )
        self.begin(side, options)

    def describe(self, reason: str) -> str:
        return f"the child process {self._pid} is gone: {reason}"

    def describe_wait(self) -> str:
        return f"the child {self._pid} has not answered yet"

    def await_reason(self, patience: float) -> None:
        self._changed.wait_for(self._is_over, min(patience, _LAST_WORDS))

    def reason(self) -> str:
        if self._taken and not self._is_over():
            return super().reason()
        return self._ending or self._failure or "the channel is closed"

    def _is_over(self) -> bool:
        return bool(self._ending) or self._closed

    def _greet(self, side: ClientSide[PipeChannel], options: Options) -> None:
        super()._greet(side, options)
        with self._changed:
            stop, self._stop = self._stop, -1
        os.close(stop)

    def child_ended(self, how: str) -> None:
        with self._changed:
            self._ending = how
            self._changed.notify_all()

    def close(self) -> None:
        super().close()
        with self._changed:
            if self._stop >= 0:
                os.eventfd_write(self._stop, 1)

    def forget(self) -> None:
        """Close in a forked child: the thread in the handshake exists only in the parent."""
        self._changed = _locks.Condition()
        self._ending = ""
        self._failure = self.foreign
        self._connection = None
        stop, self._stop = self._stop, -1
        if stop >= 0:
            os.close(stop)
        if not self._taken:
            self.forget_taken()
        self._taken = False

    def forget_taken(self) -> None:
        for fd, inode in self._ends.items():
            with contextlib.suppress(OSError):
                if os.fstat(fd).st_ino == inode:
                    os.close(fd)

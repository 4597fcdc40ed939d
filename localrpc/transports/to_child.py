"""A parent's connection to a child: made before the child, and greeted in the background."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
from time import monotonic

from localrpc import _locks
from localrpc.address import Address
from localrpc.errors import ConnectError
from localrpc.options import Options
from localrpc.transports import rings
from localrpc.transports.attempt import Attempt
from localrpc.transports.base import Connection
from localrpc.transports.byte_channels import (
    ByteChannel,
    Descriptors,
    PipeChannel,
    SocketChannel,
    grow_pipe,
)
from localrpc.transports.credentials import identified, maker_of, open_pidfd_of_holder
from localrpc.transports.forks import forget_after_fork
from localrpc.transports.handshake import MemoryRefused
from localrpc.transports.handshake_client import ClientSide, dial
from localrpc.transports.inherited import Inheritance
from localrpc.transports.once import Once

PIPE_SIZE = 1 << 20
"""Bytes each pipe is grown to."""
_LAST_WORDS = 1.0
"""Seconds to wait for a child's exit status once its connection has ended."""

making = threading.Lock()
"""Held from Preparation() until only one side is open here: a child must not get a sibling's."""


def _after_fork_in_child() -> None:
    global making
    making = threading.Lock()  # a thread that is not here may hold it


os.register_at_fork(after_in_child=_after_fork_in_child)


class Preparation:
    """Descriptors for a child that does not exist yet, of this process and of the child.

    As a context manager it closes those that have not been taken. `ours` are the parent's part of
    the connection, `capture` those for a StderrTail, and `theirs` the child's.
    """

    def __init__(self, address: Address, *, captures_stderr: bool) -> None:
        """Raises OSError."""
        self.ours, self.capture, self.theirs = Descriptors(), Descriptors(), Descriptors()
        self._forking: int | None = None
        self.stderr = -1
        """What the child has for its standard error; -1: that of this process."""
        forget_after_fork(self)
        try:
            make = self._make_pipes if address.scheme == "pipe" else self._make_sockets
            self.given = Inheritance(make(), address)
            if captures_stderr:
                self._make_stderr()
        except BaseException:
            self.close()
            raise

    def _make_pipes(self) -> tuple[int, ...]:
        """Make two pipes, and return the child's ends."""
        rx, their_tx = map(above_standard, os.pipe2(os.O_CLOEXEC))
        self.ours.add(rx)
        self.theirs.add(their_tx)
        their_rx, tx = map(above_standard, os.pipe2(os.O_CLOEXEC))
        self.ours.add(tx)
        self.theirs.add(their_rx)
        grow_pipe(tx, PIPE_SIZE)
        grow_pipe(their_tx, PIPE_SIZE)
        self.ours.add(os.dup(their_rx))
        return their_rx, their_tx, self.theirs.add(os.dup(rx))

    def _make_sockets(self) -> tuple[int, ...]:
        ours, theirs = (above_standard(sock.detach()) for sock in socket.socketpair())
        self.ours.add(ours)
        return (self.theirs.add(theirs),)

    def _make_stderr(self) -> None:
        source, writer = map(above_standard, os.pipe2(os.O_CLOEXEC))
        self.capture.add(source)
        self.stderr = self.theirs.add(writer)
        self.capture.add(_standard_error())
        self.given = self.given._replace(
            stderr=self.theirs.add(_standard_error()), stderr_pipe=os.fstat(writer).st_ino
        )

    def file_of_child(self) -> tuple[int, int]:
        """Return device and inode of a file by which the child is known: only it and this process
        have it."""
        return _file_of(self.given.fds[0])

    def fork(self) -> int:
        """Fork as os.fork(); this process's descriptors are closed in the child, no others."""
        self._forking = threading.get_ident()
        try:
            return os.fork()
        finally:
            self._forking = None

    def forget(self) -> None:
        """Close in a forked child what is not for it: all, if another thread has forked it."""
        self.ours.close()
        self.capture.close()
        if self._forking != threading.get_ident():
            self.theirs.close()

    def close(self) -> None:
        self.ours.close()
        self.capture.close()
        self.theirs.close()

    def __enter__(self) -> Preparation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def above_standard(fd: int) -> int:
    """Return `fd`, or a duplicate in its place if its number is that of a standard stream.

    A process that has closed one of these gets its number for the next file that it opens. A
    child would print there.
    """
    if fd > 2:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


def _standard_error() -> int:
    """Return a duplicate of it, or of /dev/null if it is closed."""
    try:
        return fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, 3)
    except OSError:
        return above_standard(os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC))


class ToChild(Once[ByteChannel]):
    """A parent's only connection, to a child that may tell how it has ended."""

    foreign = "it is another process's child"
    explains = True

    def __init__(
        self,
        ends: list[int],
        file_of_child: tuple[int, int],
        pid: int,
        address: Address,
        options: Options,
    ) -> None:
        """Take over `ends`, which are a Preparation's, even if this fails.

        Raises OSError, and RuntimeError if no thread can start.
        """
        super().__init__(address)
        self._pid = pid
        self._ending = ""
        self._explain_until = 0.0
        # What this process has of the connection, until a channel takes it.
        self._files = frozenset(map(_file_of, ends))
        self._channel = channel = _channel(ends)
        self._stop = -1
        forget_after_fork(self)
        side = ClientSide(
            connect=lambda attempt: channel,
            identify=lambda channel: maker_of(ends[0]),
            peer_name=f"unix:pid={pid}",
            objection=lambda peer, options: None,
            # There may be a wrapper process between this one and the server.
            watch=lambda channel, peer, hello: identified(
                peer, hello.pid, lambda pid: open_pidfd_of_holder(pid, *file_of_child)
            ),
            alive=lambda: self._stop,
        )
        try:
            self._stop = os.eventfd(0, os.EFD_CLOEXEC)
            self.begin(side, options)
        except BaseException:
            channel.close()
            self._close_stop()
            raise

    def _connect(self, side: ClientSide[ByteChannel], options: Options) -> Connection:
        if self.address.scheme != "shm":
            return super()._connect(side, options)
        refusal = f"{rings.SWITCHED_OFF} on the client"
        memory = None
        if options.shared_memory:
            try:
                memory = rings.Rings(self.address)
            except MemoryRefused as error:
                refusal = f"on the client: {error}"
            except ValueError as error:
                raise ConnectError(str(self.address), str(error)) from None
        try:
            refusal = "" if memory else refusal
            return dial(side, self.address, options, Attempt(), memory, refusal)
        except MemoryRefused as error:
            reason = f"the memory that the child has accepted cannot be used: {error}; try unix:"
            raise ConnectError(str(self.address), reason) from None

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

    def why_lost(self, patience: float) -> str:
        with self._changed:
            now = monotonic()
            # Once for all calls in progress, each of which asks.
            self._explain_until = self._explain_until or now + _LAST_WORDS
            patience = min(patience, self._explain_until - now)
            self._changed.wait_for(self._is_over, max(patience, 0))
            return self.describe(self._ending) if self._ending else ""

    def _is_over(self) -> bool:
        return bool(self._ending) or self._closed

    def _greet(self, side: ClientSide[ByteChannel], options: Options) -> None:
        super()._greet(side, options)
        with self._changed:
            self._close_stop()

    def _close_stop(self) -> None:
        stop, self._stop = self._stop, -1
        if stop >= 0:
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
        self.forget_untaken()
        self._close_stop()
        if not self._taken:
            self.forget_taken()
        self._taken = False

    def forget_taken(self) -> None:
        """Close the ends, whatever had them at the fork: a link that is being opened has others."""
        self._channel.close()
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # the listing's own
                if _file_of(int(name)) in self._files:
                    os.close(int(name))


def _file_of(fd: int) -> tuple[int, int]:
    """Return device and inode of what a descriptor refers to."""
    facts = os.fstat(fd)
    return facts.st_dev, facts.st_ino


def _channel(ends: list[int]) -> ByteChannel:
    if len(ends) == 3:
        return PipeChannel(*ends)
    sock = socket.socket(fileno=ends[0])
    sock.setblocking(False)
    return SocketChannel(sock)

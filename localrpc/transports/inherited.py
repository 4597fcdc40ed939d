"""What a child process has from its parent: one connection, over two pipes or a Unix socket.

A child that was forked finds it here, one that was started in its environment:

| variable | what |
|---|---|
| LOCALRPC_PIPE | `RX,TX,KEEP`, the pipes to read, to write, and to keep open; or `SOCKET` |
| LOCALRPC_PARENT | the parent's target, whose options are the child's, too |
| LOCALRPC_STDERR | `FD,INODE`: the parent's standard error, if the child's is that pipe to it |

The child need not know which it is: its server listens at "pipe:" in any case.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from localrpc.address import Address
from localrpc.errors import AddressError, ListenError
from localrpc.options import Options
from localrpc.transports import limits, rings
from localrpc.transports.base import Admission, Greeting, Listener
from localrpc.transports.byte_channels import PipeChannel, SocketChannel
from localrpc.transports.credentials import identified, maker_of, open_pidfd_of_sharer
from localrpc.transports.forks import forget_after_fork
from localrpc.transports.handshake_server import ServerGreeting, ServerSide
from localrpc.transports.registry import parse_target
from localrpc.transports.scheme import Kind, Scope
from localrpc.transports.sockets import unix_side

ENVIRONMENT = "LOCALRPC_PIPE"
PARENT = "LOCALRPC_PARENT"
STDERR = "LOCALRPC_STDERR"
NO_SERVER = (
    "pipe: without a path is between a parent and its child; make the channel with"
    " localrpc.spawn_channel or localrpc.fork_channel, or name a FIFO: pipe:PATH"
)
_NOT_INHERITED = (
    "this process has no pipe from a parent: start it with localrpc.spawn_channel, or name a"
    " FIFO: pipe:PATH"
)
_LAST_MOMENT = 20
"""Milliseconds within which a parent that ends has closed all of its descriptors."""


def limits_of_pipes() -> dict[str, int]:
    return {
        **limits.settings("fs", "pipe-max-size", "pipe-user-pages-soft", "pipe-user-pages-hard"),
        "RLIMIT_NOFILE": limits.rlimit("RLIMIT_NOFILE"),
    }


KIND = Kind(
    form="",
    spellings={
        "pipe:": "what a parent left to this process: pipes or, if it chose so, a socket or rings"
        " in shared memory; see [Children](#children)"
    },
    scope=Scope.FAMILY,
    direction="two one-way channels",
    technique="pipes inherited from the parent, by fork or spawn",
    credentials="no other process holds its ends; pid, uid: from /proc",
    limits=limits_of_pipes,
)

TARGETS = ("pipe:", "unix:", "shm:")
"""What a parent may choose for a child: these have no name, but may have options."""


def parse_child_target(text: str) -> Address:
    """Parse a target for a connection to a child. Raises AddressError, and TypeError for no str."""
    if not isinstance(text, str):
        raise TypeError(f"the target of a child is a str, not {type(text).__name__}")
    head, mark, query = text.partition("?")
    if head not in TARGETS:
        raise AddressError(
            f"target {text!r} is not for a child: write pipe:, unix: or shm:, without a name, and"
            " options if needed, as in shm:?ring=4M"
        )
    # Any name does for the options to be parsed.
    named = parse_target(f"{head}child{mark}{query}")
    return Address(named.scheme, "", named.options, text)


class Inheritance(NamedTuple):
    """What a parent leaves to one child; the child owns the descriptors."""

    fds: tuple[int, ...]
    """Three pipes, or one connected socket."""
    address: Address
    """The parent's target."""
    stderr: int = -1
    """The parent's standard error, if the child's own is a pipe to the parent; else -1."""
    stderr_pipe: int = 0
    """The inode of that pipe."""

    def descriptors(self) -> tuple[int, ...]:
        return self.fds if self.stderr < 0 else (*self.fds, self.stderr)

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return `base` with the variables that tell a program of it."""
        variables = dict(base)
        variables[ENVIRONMENT] = ",".join(map(str, self.fds))
        variables[PARENT] = str(self.address)
        variables.pop(STDERR, None)  # it would be this process's own
        if self.stderr >= 0:
            variables[STDERR] = f"{self.stderr},{self.stderr_pipe}"
        return variables

    def close(self) -> None:
        for fd in self.descriptors():
            os.close(fd)


_given: Inheritance | None = None
"""What the parent left to this process, until a server listens there."""


def leave_to_this_process(given: Inheritance) -> None:
    """Note what a forked child has from its parent, for add_insecure_port("pipe:")."""
    global _given
    _given = given


def _take() -> Inheritance:
    """Raises ValueError if there is nothing, or not what it should be."""
    global _given
    given, _given = _given, None
    if given is not None:
        return given
    # No other code may take it, least of all a child of this process.
    text, target, error = (os.environ.pop(name, "") for name in (ENVIRONMENT, PARENT, STDERR))
    if not text:
        raise ValueError(_NOT_INHERITED)
    try:
        fds = tuple(map(int, text.split(",")))
        if not (_three_pipes(fds) or _one_socket(fds)):
            raise ValueError
    except (ValueError, OSError):
        raise ValueError(
            f"{ENVIRONMENT}={text} does not name three pipes of this process, or one connected"
            " Unix socket"
        ) from None
    address = parse_child_target(target or ("unix:" if len(fds) == 1 else "pipe:"))
    given = Inheritance(fds, address, *_numbers(error))
    for fd in given.descriptors():
        os.set_inheritable(fd, False)
    return given


def _three_pipes(fds: tuple[int, ...]) -> bool:
    return len(fds) == 3 and all(stat.S_ISFIFO(os.fstat(fd).st_mode) for fd in fds)


def _one_socket(fds: tuple[int, ...]) -> bool:
    if len(fds) != 1 or not stat.S_ISSOCK(os.fstat(fds[0]).st_mode):
        return False
    sock = socket.socket(fileno=fds[0])
    try:
        sock.getpeername()
        return (sock.family, sock.type) == (socket.AF_UNIX, socket.SOCK_STREAM)
    finally:
        sock.detach()


def _numbers(text: str) -> tuple[int, int]:
    """Return the parent's standard error and the pipe's inode; without them there is no way back,
    which a server need not fail for."""
    with contextlib.suppress(ValueError, OSError):
        fd, inode = map(int, text.split(","))
        os.fstat(fd)
        return fd, inode
    return -1, 0


class _InheritedListener(Listener):
    """Brings the parent, once: it made the connection, so it may call, whatever its user."""

    def __init__(
        self, address: Address, options: Options, admission: Admission, given: Inheritance
    ) -> None:
        self.address = address
        self._options = options
        self._admission = admission
        self._given: Inheritance | None = given
        self._ready = os.eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        forget_after_fork(self)

    def fileno(self) -> int:
        return self._ready

    def accept(self) -> list[Greeting]:
        given, self._given = self._given, None
        if given is None:
            return []
        os.eventfd_read(self._ready)
        admission = self._admission
        if given.stderr >= 0:
            leave = partial(_leave, given.stderr, given.stderr_pipe, admission)
            admission = admission._replace(leave=leave)
        channel, side = _over_socket(given) if len(given.fds) == 1 else _over_pipes(given)
        return [ServerGreeting(channel, side, self.address, self._options, admission)]

    def close(self) -> None:
        self.forget()

    def forget(self) -> None:
        given, self._given = self._given, None
        if given is not None:
            given.close()
        ready, self._ready = self._ready, -1
        if ready >= 0:
            os.close(ready)


def _over_pipes(given: Inheritance) -> tuple[PipeChannel, ServerSide[Any]]:
    rx, tx, keep = given.fds
    side = ServerSide[PipeChannel](
        identify=lambda channel: maker_of(rx),
        watch=lambda channel, peer, hello: identified(
            peer, hello.pid, lambda pid: open_pidfd_of_sharer(pid, rx)
        ),
        objection=lambda channel, peer, options: None,
        single=True,
    )
    return PipeChannel(rx, tx, keep), side


def _over_socket(given: Inheritance) -> tuple[SocketChannel, ServerSide[Any]]:
    sock = socket.socket(fileno=given.fds[0])
    sock.setblocking(False)
    return SocketChannel(sock), unix_side(welcome=rings.welcome_any, single=True, trusted=True)


def listen(address: Address, options: Options, admission: Admission) -> Listener:
    try:
        given = _take()
        own = {**given.address.options, **address.options}
        address = given.address._replace(options=MappingProxyType(own))
        try:
            if address.scheme == "shm":
                rings.prepare_server(address)
            return _InheritedListener(address, options, admission, given)
        except BaseException:
            leave_to_this_process(given)  # for another try
            raise
    except (ValueError, OSError) as error:
        raise ListenError(str(address), rings.reason_of(error)) from None


def _leave(stderr: int, pipe: int, admission: Admission, uid: int) -> None:
    """End the admission of a parent. If it is gone, write to its standard error from now on.

    Otherwise a child that goes on could not write to its own any longer: EPIPE.
    """
    admission.leave(uid)
    try:
        if os.fstat(2).st_ino == pipe:  # else the program has replaced it
            poller = select.poll()
            poller.register(2, 0)
            if poller.poll(_LAST_MOMENT):  # POLLERR: no process reads it any longer
                os.dup2(stderr, 2)
    except OSError:
        pass  # closed by the program
    os.close(stderr)

"""Sockets that a parent or a service manager has left to this process, by number or by name.

Names are those of sd_listen_fds(3): LISTEN_PID is the process that the descriptors are for,
LISTEN_FDS their number from 3 on, LISTEN_FDNAMES their names.
"""

from __future__ import annotations

import os
import socket
import stat

from localrpc import _locks

_FIRST = 3
_FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)
_KINDS = {socket.SOCK_DGRAM: "datagram", socket.SOCK_SEQPACKET: "sequential-packet"}
_FILES = (
    (stat.S_ISREG, "a file"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_WANTED = "fd: takes a listening or connected stream socket, Unix or TCP"

_lock = _locks.Lock()
_taken: dict[int, int] = {}
"""Which socket (its inode, never used again) was taken under a number."""


def take(body: str) -> socket.socket:
    """Return the socket that `fd:BODY` names, close-on-exec and non-blocking, owned by the caller.

    Raises ValueError, which says what is there instead, and the fix; then nothing
    has been changed.
    """
    number = int(body) if body.isdecimal() else _number_of(body)
    with _lock:
        sock = _inspect(number)
        inode = os.fstat(number).st_ino
        if _taken.get(number) == inode:
            sock.detach()
            raise ValueError(
                f"descriptor {number} is taken: another fd:{number} of this process has it"
            )
        _taken[number] = inode
    sock.set_inheritable(False)
    # For all processes that share it, so that accept() does not block if another process
    # was faster.
    sock.setblocking(False)
    return sock


def release(sock: socket.socket) -> None:
    """Undo take(): the descriptor stays open, for another user of it."""
    with _lock:
        _taken.pop(sock.detach(), None)


def listens(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _number_of(name: str) -> int:
    count = _passed()
    if count is None:
        raise ValueError(
            f"no descriptor is called {name!r}: LISTEN_FDS is not set; start the program by its"
            " .socket unit, or give a number"
        )
    if reason := _for_another():
        raise ValueError(f"no descriptor of this process is called {name!r}: {reason}")
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")[:count]
    numbers = [_FIRST + index for index, each in enumerate(names) if each == name]
    if not numbers:
        known = ", ".join(names) or "none"
        raise ValueError(f"no descriptor is called {name!r}: LISTEN_FDNAMES has {known}")
    if len(numbers) > 1:
        several = " and ".join(map(str, numbers))
        raise ValueError(f"the descriptors {several} are all called {name!r}; give a number")
    return numbers[0]


def _passed() -> int | None:
    """Return how many descriptors a service manager has passed; None without one."""
    text = os.environ.get("LISTEN_FDS", "")
    return int(text) if text.isdecimal() else None


def _for_another() -> str:
    """Return why they are not this process's; empty if they are."""
    pid = os.environ.get("LISTEN_PID", "")
    if pid == str(os.getpid()):
        return ""
    return (
        f"LISTEN_PID is {pid or 'not set'} and this process is {os.getpid()}; let the service run"
        " the program itself, or exec it"
    )


def _inspect(number: int) -> socket.socket:
    """Yield a Python socket around the descriptor, which stays open in any case."""
    try:
        mode = os.fstat(number).st_mode
    except OSError:
        raise ValueError(f"descriptor {number} is not open in this process{_hint()}") from None
    if not stat.S_ISSOCK(mode):
        what = next((what for test, what in _FILES if test(mode)), "not a socket")
        raise ValueError(f"descriptor {number} is {what}; {_WANTED}")
    sock = socket.socket(fileno=number)
    try:
        if sock.family not in _FAMILIES or sock.proto not in (0, socket.IPPROTO_TCP):
            raise ValueError(
                f"descriptor {number} is a socket of family {sock.family!r} and protocol"
                f" {sock.proto}; {_WANTED}"
            )
        if sock.type != socket.SOCK_STREAM:
            kind = _KINDS.get(sock.type, str(sock.type))
            raise ValueError(
                f"descriptor {number} is a {kind} socket; {_WANTED} (in a .socket unit:"
                " ListenStream=)"
            )
        if not listens(sock) and not _connected(sock):
            raise ValueError(
                f"descriptor {number} is a socket that neither listens nor is connected; call"
                " listen() or connect() before it is passed on"
            )
    except BaseException:
        sock.detach()
        raise
    return sock


def _connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _hint() -> str:
    count = _passed()
    if count is None:
        return "; the starting program has to pass it on (subprocess: pass_fds)"
    if reason := _for_another():
        return f"; {reason}"
    last = _FIRST + count - 1
    return f"; LISTEN_FDS={count} passes {f'{_FIRST} to {last}' if count else 'none'}"

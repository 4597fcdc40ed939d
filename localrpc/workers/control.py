"""The socket between a supervisor and one of its workers, or a preloader.

Each message is one packet. The supervisor sends the worker's settings, then Order.DRAIN; the worker
sends a Report before it takes calls, when it is ready, when it cannot start, when it begins to end
and, with a watchdog, as long as its interpreter runs. The end of the socket is the end of the
process that had the other side: a worker without a supervisor ends.

A preloader gets settings, too, then Order.FORK for each worker, with the worker's side of the
socket between the two. A forked worker gets the descriptors of its places with its settings.
"""

from __future__ import annotations

import array
import enum
import json
import os
import select
import socket
from collections.abc import Sequence
from typing import NamedTuple

of_a_worker = False
"""True in a worker's process."""
ENVIRONMENT = "LOCALRPC_CONTROL"
"""Names the worker's descriptor of it."""
_LARGEST = 4 << 16
"""Bytes of a packet: those of the settings, and at most three times as many for the targets, with
those of the worker alone."""
_WORDS = 2000
"""Characters of a report's text."""
_MOST_FDS = 250
"""Of a packet; the kernel takes 253."""
PRELOADER = 0
"""The number of a job: this process is to load the application, and to fork workers."""


class Order(enum.Enum):
    DRAIN = b"drain"
    FORK = b"fork"


class Event(enum.Enum):
    OPENS = "opens"
    READY = "ready"
    RUNS = "runs"
    CANNOT_START = "cannot start"
    LEAVING = "leaving"
    LOADED = "loaded"
    """A preloader may be sent Order.FORK."""
    FORKED = "forked"
    """A worker exists; the text is its pid."""
    BEGINS = "begins"
    """A forked worker is a child of the supervisor; the text is its pid."""


class Report(NamedTuple):
    """What a worker reports."""

    event: Event
    text: str = ""


class Job(NamedTuple):
    """What a worker is to do."""

    number: int
    settings: bytes
    targets: tuple[str, ...]
    """Where it listens: inherited sockets as `fd:`."""
    group: str
    """Whose worker it is; empty: it has no place of its own."""


class Control:
    """One side. Owns the socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self) -> None:
        self.sock.close()

    # The supervisor's side

    def send_job(self, job: Job, fds: Sequence[int] = ()) -> None:
        """Send it to a worker; to one that has not inherited them, with the descriptors of its
        targets. Raises OSError."""
        head = json.dumps((job.number, job.targets, job.group, fds)).encode()
        self._send_with(head + b"\n" + job.settings, fds[:_MOST_FDS])
        for begin in range(_MOST_FDS, len(fds), _MOST_FDS):
            self._send_with(b"more", fds[begin : begin + _MOST_FDS])

    def send_worker(self, theirs: Control) -> None:
        """Have a preloader fork a worker that has the other side of the way to it.

        Never waits. Raises OSError.
        """
        self._send_with(Order.FORK.value, [theirs.fileno()], socket.MSG_DONTWAIT)

    def _send_with(self, data: bytes, fds: Sequence[int], flags: int = 0) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.sock.sendmsg([data], rights, flags)

    def send_order(self, order: Order) -> None:
        """Do nothing if the worker has gone."""
        try:
            self.sock.send(order.value, socket.MSG_DONTWAIT)
        except OSError:
            pass

    def receive_report(self) -> Report | None:
        """Return what a worker has sent, without waiting; None at the end.

        Raises BlockingIOError if there is nothing yet.
        """
        try:
            data = self.sock.recv(_LARGEST, socket.MSG_DONTWAIT)
        except ConnectionResetError:
            return None
        if not data:
            return None
        event, text = json.loads(data)
        return Report(Event(event), text)

    # The worker's side

    def receive_job(self) -> Job | None:
        """Wait for it; None if the supervisor has gone."""
        data, fds = self._receive_with()
        if not data:
            return None
        head, _, settings = data.partition(b"\n")
        # A supervisor that is older than this program may have sent less.
        number, targets, *rest = json.loads(head)
        group: str = rest[0] if rest else ""
        theirs: list[int] = rest[1] if len(rest) > 1 else []
        while len(fds) < len(theirs):
            data, more = self._receive_with()
            if not data:
                return None
            fds += more
        here = {f"fd:{there}": f"fd:{fd}" for there, fd in zip(theirs, fds, strict=True)}
        return Job(number, settings, tuple(_renamed(each, here) for each in targets), group)

    def receive_worker(self) -> Control | None:
        """Wait until a worker is to be forked, and return its side of the way to the supervisor;
        None if the supervisor has gone."""
        data, fds = self._receive_with()
        if not data:
            return None
        (fd,) = fds
        return Control(socket.socket(fileno=fd))

    def _receive_with(self) -> tuple[bytes, list[int]]:
        """Return what comes next, with its descriptors; no bytes if the supervisor has gone."""
        try:
            data, ancillary, _, _ = self.sock.recvmsg(
                _LARGEST, socket.CMSG_SPACE(_MOST_FDS * 4), socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            return b"", []
        fds = array.array("i")
        for level, kind, part in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(part[: len(part) - len(part) % fds.itemsize])
        return data, fds.tolist()

    def has_ended(self) -> bool:
        """Return True if the supervisor has gone."""
        poller = select.poll()
        poller.register(self.sock, 0)
        return bool(poller.poll(0))

    def send_report(self, report: Report) -> None:
        """Do nothing if the supervisor has gone."""
        try:
            self.sock.send(json.dumps((report.event.value, report.text[:_WORDS])).encode())
        except OSError:
            pass

    def send_beat(self) -> None:
        """Report that the interpreter runs; never wait."""
        try:
            self.sock.send(json.dumps((Event.RUNS.value, "")).encode(), socket.MSG_DONTWAIT)
        except OSError:
            pass

    def receive_order(self) -> Order | None:
        """Wait for it; None if the supervisor has gone."""
        try:
            data = self.sock.recv(_LARGEST)
        except ConnectionResetError:
            return None
        return Order(data) if data else None


def _renamed(target: str, names: dict[str, str]) -> str:
    place, mark, options = target.partition("?")
    return f"{names.get(place, place)}{mark}{options}"


def pair() -> tuple[Control, Control]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LARGEST)  # the kernel doubles it
    return Control(ours), Control(theirs)


def inherited() -> Control | None:
    """Return the worker's side in a process that a supervisor has started."""
    global of_a_worker
    of_a_worker = True
    text = os.environ.pop(ENVIRONMENT, "")
    if not text.isdecimal():
        return None
    sock = socket.socket(fileno=int(text))
    sock.set_inheritable(False)  # or a program that outlives the worker would hide its end
    return Control(sock)

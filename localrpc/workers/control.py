"""The socket between a supervisor and one of its workers.

Each message is one packet. The supervisor sends the worker's settings, then Order.DRAIN; the worker
sends a Report before it takes calls, when it is ready, when it cannot start, when it begins to end
and, with a watchdog, as long as its interpreter runs. The end of the socket is the end of the
process that had the other side: a worker without a supervisor ends.
"""

from __future__ import annotations

import enum
import json
import os
import socket
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


class Order(enum.Enum):
    DRAIN = b"drain"


class Event(enum.Enum):
    OPENS = "opens"
    READY = "ready"
    RUNS = "runs"
    CANNOT_START = "cannot start"
    LEAVING = "leaving"


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

    def send_job(self, job: Job) -> None:
        """Raises OSError."""
        head = json.dumps((job.number, job.targets, job.group)).encode()
        self.sock.send(head + b"\n" + job.settings)

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
        data = self.sock.recv(_LARGEST)
        if not data:
            return None
        head, _, settings = data.partition(b"\n")
        number, targets, *group = json.loads(head)
        return Job(number, settings, tuple(targets), group[0] if group else "")

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

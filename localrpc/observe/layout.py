"""The bytes of a page, as _core/src/api.h lays them out (struct lr_page and what it holds)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from localrpc.observe.latency import BUCKETS, Latency

MAGIC = b"localrpc"
VERSION = 1
ENTRY_SIZE = 4096
ENTRIES = 1023
CODES = 18
"""gRPC's status codes, 0 to 16, and one place for any other."""
LIVE, FORMER, CLOSED = 1, 2, 3
ROLES = ("channel", "server")

HEADER = struct.Struct("=8s6I1024s")
ENTRY = struct.Struct(f"=2IQ1024s12Q{CODES}Q{BUCKETS}Q")
_PRESENT = (LIVE, FORMER, CLOSED)
_HEAD = 4
_SECONDS = _HEAD + 11
_ENDED = _SECONDS + 1
_LATENCY = _ENDED + CODES
"""Where what is among an entry's fields."""


class Counts(NamedTuple):
    """What the engine of a server, or of a channel's connection, has counted.

    What is now goes up and down; the rest grows.
    """

    connections: int
    """Now."""
    in_flight: int
    """Calls now: from the request's first frame until the call's owner has let it go."""
    waiting: int
    """Of a server, calls of these that no thread has taken up."""
    streams: int
    """Calls of these in which one side has sent a message that was not its only one."""
    connected: int
    """Connections there have been."""
    begun: int
    """Calls there have been; a channel's further attempt at a call is one more."""
    refused: int
    """Of a server, calls that no handler saw, because of a limit or its end; not in `begun`."""
    frames_in: int
    """Frames received; a small call has one each way."""
    frames_out: int
    """Frames sent."""
    bytes_in: int
    """Bytes of the frames received, with their headers."""
    bytes_out: int
    """Bytes of the frames sent, with their headers."""
    seconds: float
    """How long all ended calls together have lasted."""
    ended: tuple[int, ...]
    """Ended calls by gRPC's status code, 0 to 16; the last number is for any other code."""
    latency: Latency
    """Ended calls by how long they have lasted."""

    @property
    def failed(self) -> int:
        """Calls that have ended with another status than OK."""
        return sum(self.ended[1:])

    def plus(self, other: Counts) -> Counts:
        """Return the counts of both together."""
        numbers = [one + another for one, another in zip(self[:11], other[:11], strict=True)]
        ended = zip(self.ended, other.ended, strict=True)
        return Counts._make(
            (
                *numbers,
                self.seconds + other.seconds,
                tuple(one + another for one, another in ended),
                self.latency.plus(other.latency),
            )
        )

    def since(self, earlier: Counts) -> Counts:
        """Return what has been counted since an earlier reading; what goes up and down is as now.

        Where less is counted now than then, another engine counts: it has counted all of it.
        """
        if self.begun < earlier.begun or self.connected < earlier.connected:
            return self
        numbers = [now - before for now, before in zip(self[4:11], earlier[4:11], strict=True)]
        ended = zip(self.ended, earlier.ended, strict=True)
        return Counts._make(
            (
                *self[:4],
                *numbers,
                self.seconds - earlier.seconds,
                tuple(max(0, now - before) for now, before in ended),
                self.latency.since(earlier.latency),
            )
        )


class Endpoint(NamedTuple):
    """A server, or a connection of a channel, of one process; from total(), all that there have
    been of one role and target.
    """

    role: str
    """"server" or "channel"."""
    target: str
    """A channel's target; all of a server's, with spaces between them."""
    live: bool
    """False if its engine has ended; the next one of that role and target goes on counting."""
    since: float
    """When its engine began, on the clock of time.monotonic()."""
    counts: Counts
    """Its own, and those of ended ones whose role and target it has."""


class Page(NamedTuple):
    """What a process says of itself."""

    pid: int
    """In the process's own namespace."""
    note: str
    """What kind of process it is, such as a worker; empty for most."""
    left_out: int
    """Engines that are not among `endpoints`, because there were too many."""
    endpoints: tuple[Endpoint, ...]
    """Several may have one role and target: total() adds them up."""


def owner(head: bytes) -> int | None:
    """Return the pid in a page's first HEADER.size bytes, None if they are too few."""
    return HEADER.unpack(head)[5] if len(head) == HEADER.size else None


def parse(read: Callable[[int, int], bytes]) -> Page | None:
    """Return the page that `read(offset, size)` reads from; None if it is none, or of a version
    that this module does not know.
    """
    head = read(0, HEADER.size)
    if len(head) < HEADER.size:
        return None
    magic, version, size, entries, used, pid, left_out, note = HEADER.unpack(head)
    if (magic, version, size, entries) != (MAGIC, VERSION, ENTRY_SIZE, ENTRIES):
        return None
    endpoints = []
    data = read(ENTRY_SIZE, min(used, ENTRIES) * ENTRY_SIZE)
    for at in range(0, len(data) - ENTRY.size + 1, ENTRY_SIZE):
        # There may be thousands of former ones, so what each costs counts.
        fields = ENTRY.unpack_from(data, at)
        state, role, since, name = fields[:_HEAD]
        if state in _PRESENT:
            seconds, ended = fields[_SECONDS] / 1e9, fields[_ENDED:_LATENCY]
            latency = Latency(fields[_LATENCY:])
            counts = Counts._make((*fields[_HEAD:_SECONDS], seconds, ended, latency))
            role = ROLES[role] if role < len(ROLES) else str(role)
            endpoints.append(Endpoint(role, _text(name), state == LIVE, since / 1e9, counts))
    return Page(pid, _text(note), left_out, tuple(endpoints))


def _text(name: bytes) -> str:
    return name.partition(b"\0")[0].decode("utf-8", "replace")

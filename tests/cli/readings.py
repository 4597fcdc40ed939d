"""Processes that exist only as what `ps` and `top` read of them."""

from __future__ import annotations

from localrpc.cli.processes.rows import Reading, Row, Wanted, rows_of
from localrpc.observe import Counts, Endpoint, Latency, Page, Process
from localrpc.observe.latency import BUCKETS

EVERYTHING = Wanted(ended=True)


def counts(
    ok: int = 0,
    *,
    failed: int = 0,
    code: int = 5,
    bucket: int = 100,
    connections: int = 1,
    in_flight: int = 0,
    waiting: int = 0,
) -> Counts:
    """Of calls that have ended, all as late as a bucket says, and others that are in flight."""
    ended = [0] * 18
    ended[0], ended[code] = ok, failed
    lasted = [0] * BUCKETS
    lasted[bucket] = ok + failed
    return Counts(
        connections=connections,
        in_flight=in_flight,
        waiting=waiting,
        streams=0,
        connected=connections,
        begun=ok + failed + in_flight,
        refused=0,
        frames_in=0,
        frames_out=0,
        bytes_in=0,
        bytes_out=0,
        seconds=0.25 * (ok + failed),
        ended=tuple(ended),
        latency=Latency(tuple(lasted)),
    )


def endpoint(
    counted: Counts | None = None,
    *,
    role: str = "server",
    target: str = "shm:greeter",
    live: bool = True,
    since: float = 0.0,
) -> Endpoint:
    return Endpoint(role, target, live, since, counts() if counted is None else counted)


def process(
    *endpoints: Endpoint,
    pid: int = 1000,
    uid: int = 0,
    command: str = "python serve.py",
    state: str = "S",
    processor: float = 0.0,
    note: str = "",
) -> Process:
    page = Page(pid, note, 0, endpoints)
    return Process(pid, uid, command, state, 3, 20 << 20, processor, page)


def rows(*processes: Process, time: float = 100.0, wanted: Wanted = EVERYTHING) -> list[Row]:
    return rows_of(Reading(time, processes), None, wanted)

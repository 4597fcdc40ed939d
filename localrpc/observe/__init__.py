"""What localrpc's processes count, read from outside: for commands, metrics and programs.

Each process that has a server or a channel keeps a page in memory, which its user can find in
/proc: `processes()` reads the pages of all of this user's processes, `process()` that of one, and
`own()` that of this one. `total()` adds up what has one role and target.
Nothing is asked of a process, so one that is stopped, or busy, is seen like any other. Reading
takes no lock: numbers of one moment may differ by the calls that begin or end meanwhile. Any
thread may read, and a forked child sees what it counts itself.
"""

from __future__ import annotations

from localrpc.observe.latency import Latency
from localrpc.observe.layout import Counts, Endpoint, Page
from localrpc.observe.processes import Process, own, process, processes
from localrpc.observe.totals import total

__all__ = [
    "Counts",
    "Endpoint",
    "Latency",
    "Page",
    "Process",
    "own",
    "process",
    "processes",
    "total",
]

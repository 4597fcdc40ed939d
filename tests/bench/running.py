"""A peer's server in a separate process, and a client in this one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from localrpc.bench.halves import Worker
from localrpc.bench.peer import Client
from localrpc.bench.peers import find_peer

CORES = os.sched_getaffinity(0)


@contextmanager
def running(name: str, directory: Path, cores: set[int] = CORES) -> Iterator[tuple[int, Client]]:
    """The pid of a peer's server, and a client in this process."""
    peer = find_peer(name)
    with closing(Worker("server", peer, directory, cores)) as worker:
        assert worker.answer(20.0) is None
        with closing(peer.connect(directory)) as client:
            yield worker.pid, client

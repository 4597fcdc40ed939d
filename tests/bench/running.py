"""A peer's server in a separate process, and a client in this one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from localrpc.bench.halves import Worker
from localrpc.bench.peer import Client
from localrpc.bench.peers import find_peer

CORES = os.sched_getaffinity(0)


def folder_for_halves(factory: pytest.TempPathFactory) -> Path:
    """A short path, for a socket's has 107 bytes, that no other user can enter."""
    folder = factory.mktemp("b")
    folder.chmod(0o700)
    return folder


@contextmanager
def running(name: str, directory: Path, cores: set[int] = CORES) -> Iterator[tuple[int, Client]]:
    """The pid of a peer's server, and a client in this process."""
    peer = find_peer(name)
    with closing(Worker("server", peer, directory, cores)) as worker:
        assert worker.answer(20.0) is None
        with closing(peer.connect(directory)) as client:
            yield worker.pid, client

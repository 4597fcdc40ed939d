"""One half of a peer in a process of its own, which takes its orders from a pipe.

Run by the runner as `python -m localrpc.bench.worker ROLE PEER DIRECTORY FD CORES`; PEER is only
for people who look at the list of processes.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc

from .halves import Worker
from .peer import Client, Peer, UnsupportedScenario
from .sample import Failure, Limit, Slice, Unsupported
from .scenarios import Scenario

# The pipe carries the Peer, then (Scenario, Slice) one way and Sample, Failure or Unsupported
# the other; a first None says that this half is ready. The end of the pipe is the end of the run.


_PATIENCE = 20.0
"""Seconds for a neighbour's start and its first call."""
_LIMITS = (errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.ENOMEM)


def serve(peer: Peer, directory: Path, pipe: Any) -> None:
    with peer.serve(directory):
        pipe.send(None)
        pipe.recv()


def measure(peer: Peer, directory: Path, pipe: Any) -> None:
    def connect() -> Client:
        client = peer.connect(directory)
        client.again = connect
        client.neighbour = neighbour
        return client

    @contextmanager
    def neighbour(size: int) -> Iterator[None]:
        worker = Worker("neighbour", peer, directory, os.sched_getaffinity(0))
        try:
            answer = worker.ask(size, _PATIENCE)
            if isinstance(answer, Unsupported):
                raise UnsupportedScenario
            if isinstance(answer, Failure):
                raise RuntimeError(f"the neighbour: {answer}")
            yield
        finally:
            worker.close()

    with closing(connect()) as client:
        pipe.send(None)
        while True:
            scenario: Scenario
            slice_: Slice
            scenario, slice_ = pipe.recv()
            try:
                sample = scenario.measure(client, slice_)
                pipe.send(replace(sample, size=scenario.message_size))
            except UnsupportedScenario:
                pipe.send(Unsupported())
            except Exception as error:
                traceback.print_exc()
                pipe.send(_failure(error))


def disturb(peer: Peer, directory: Path, pipe: Any) -> None:
    """Make large calls one after the other until the pipe ends; report the first one."""
    size: int = pipe.recv()
    with closing(peer.connect(directory)) as client:
        try:
            call = client.raw(size)
        except UnsupportedScenario:
            pipe.send(Unsupported())
            return
        pipe.send(None)
        while not pipe.poll():
            client.driver.once(call)


def _failure(error: Exception) -> Failure:
    if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call):
        limit = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        text = f"{error.code().name}: {error.details()}"
    else:
        limit = isinstance(error, OSError) and error.errno in _LIMITS
        text = f"{type(error).__name__}: {error}"
    return Limit(text) if limit else Failure(text)


_ROLES = {"server": serve, "client": measure, "neighbour": disturb}


def main() -> None:
    # Ctrl-C is for the runner, which then ends the others in order. Not a session of its own:
    # the kernel's autogroups would make switching between two such processes slower than between
    # any two programs of one shell. And not preexec_fn: with it the runner's half forks, and
    # where grpcio has threads, the child may abort before the program is started.
    os.setpgrp()
    role, _, directory, fd, cores = sys.argv[1:]
    os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    pipe: Any = Connection(int(fd))
    try:
        _ROLES[role](pipe.recv(), Path(directory), pipe)
    except EOFError:
        return
    except Exception as error:
        traceback.print_exc()
        pipe.send(_failure(error))


if __name__ == "__main__":
    main()

"""One half of a peer in a process of its own, told what to do through a pipe.

Run by the runner as `python -m localrpc.bench.worker ROLE PEER DIRECTORY FD CORES`.
"""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from .peers import Peer, UnsupportedScenario, find_peer
from .sample import Failure, Slice
from .scenarios import Scenario

# The pipe carries (Scenario, Slice) one way and Sample or Failure the other; a
# first None says that this half is ready. Its end is the end of the run.


def serve(peer: Peer, directory: Path, pipe: Any) -> None:
    with peer.serve(directory):
        pipe.send(None)
        pipe.recv()


def measure(peer: Peer, directory: Path, pipe: Any) -> None:
    with closing(peer.connect(directory)) as client:
        pipe.send(None)
        while True:
            scenario: Scenario
            slice_: Slice
            scenario, slice_ = pipe.recv()
            try:
                pipe.send(scenario.measure(client, slice_))
            except UnsupportedScenario:
                pipe.send(Failure("not possible with this peer"))
            except Exception as error:
                traceback.print_exc()
                pipe.send(Failure(f"{type(error).__name__}: {error}"))


def main() -> None:
    role, name, directory, fd, cores = sys.argv[1:]
    os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    pipe: Any = Connection(int(fd))
    try:
        (serve if role == "server" else measure)(find_peer(name), Path(directory), pipe)
    except EOFError:
        return
    except Exception as error:
        traceback.print_exc()
        pipe.send(Failure(f"{type(error).__name__}: {error}"))


if __name__ == "__main__":
    main()

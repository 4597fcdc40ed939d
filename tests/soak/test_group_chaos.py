"""Everything at once, with a group of workers: they are killed, stopped, replaced and scaled.

The oracle is that of test_chaos.py, and stricter: only a kill is trouble. While workers are
replaced, added, removed or stopped, no call may end with UNAVAILABLE.

Some seconds a target in an ordinary run, 30 minutes at full length (LOCALRPC_SOAK=full).
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest

import localrpc
from tests.concurrency.engines import live_calls
from tests.peers.journal import PATIENCE
from tests.peers.processes import Peer
from tests.peers.scenes import await_that
from tests.peers.station import ANY_SIZE
from tests.rpc.groups import eventually
from tests.soak.test_chaos import CLIENTS, FULL, LIMITS, PROCESSES, call_at_random
from tests.workers.served import Served

SECONDS = 1800.0 if FULL else 2.0
LEAST, MOST = 2, 4
"""Workers."""
APP = """
from tests.soak.test_chaos import handlers, most_descriptors

def setup(server):
    most_descriptors()
    server.add_generic_rpc_handlers((handlers(),))
"""

pytestmark = pytest.mark.timeout(SECONDS + 300)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="lrc") as name:  # a socket's path has 107 bytes
        (Path(name) / "app.py").write_text(APP)
        yield Path(name)


class Trouble:
    """What happens to the workers. Only what begins with `kill` may fail calls."""

    def __init__(self, served: Served, draw: random.Random) -> None:
        self._served = served
        self._draw = draw
        self._wanted = LEAST

    def _some_worker(self) -> int:
        # One that ends anyway is not replaced.
        eventually(lambda: len(self._served.workers()) == self._wanted, "the others have ended")
        return self._draw.choice(self._served.workers())

    def kill_one(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.kill(self._some_worker(), signal.SIGKILL)
        self._served.until("is ready (pid ")

    def freeze_one(self) -> None:
        pid = self._some_worker()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.3)  # the time that it is away is what is tried
            os.kill(pid, signal.SIGCONT)

    def replace_all(self) -> None:
        self._served.signal(signal.SIGHUP)
        self._served.until("is ready (pid ", self._wanted)

    def add_one(self) -> None:
        if self._wanted < MOST:
            self._wanted += 1
            self._served.signal(signal.SIGTTIN)
            self._served.until("is ready (pid ")

    def remove_one(self) -> None:
        if self._wanted > LEAST:
            self._wanted -= 1
            self._served.signal(signal.SIGTTOU)
            self._served.until("SIGTTOU")

    def replace_supervisor(self) -> None:
        self._served.signal(signal.SIGUSR2)
        self._served.until("is ready (pid ", self._wanted)


TROUBLES = ("kill_one", "freeze_one", "replace_all", "add_one", "remove_one", "replace_supervisor")


def announced(clients: list[Any], pipes: list[Any]) -> None:
    """Have all clients know that calls may fail now."""
    for ours, _ in pipes:
        ours.send("trouble")
    for client, (ours, _) in zip(clients, pipes, strict=True):
        assert ours.poll(PATIENCE), f"no answer: {client.hear('done')}"
        ours.recv()


@pytest.mark.parametrize("scheme", ["shm", "unix", "unix-abstract"] if FULL else ["shm", "unix"])
def test_only_a_kill_fails_calls(folder: Path, scheme: str) -> None:
    seed = int(os.environ.get("LOCALRPC_SEED", 0)) or random.SystemRandom().randrange(1 << 30)
    print(f"\n{scheme}: LOCALRPC_SEED={seed}", flush=True)
    draw, target = random.Random(seed), f"{scheme}:{folder}/s"
    options = [f"--option={key}={value}" for key, value in (*ANY_SIZE, *LIMITS)]
    arguments = ["app:setup", "--target", target, "--threads", "8", f"--workers={LEAST}", *options]
    pipes = [Pipe() for _ in range(PROCESSES)]
    codes: Counter[str] = Counter()
    done: Counter[str] = Counter()
    with Served(folder, *arguments) as served, contextlib.ExitStack() as stack:
        served.ready(LEAST)
        trouble = Trouble(served, draw)
        clients = [
            stack.enter_context(
                Peer(call_at_random, target, CLIENTS // PROCESSES, seed + 1000 * number, theirs)
            )
            for number, (_, theirs) in enumerate(pipes)
        ]
        for client in clients:
            client.hear("calling")
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            threading.Event().wait(draw.random() / 2)
            name = draw.choice(TROUBLES)
            if name.startswith("kill"):
                announced(clients, pipes)
            getattr(trouble, name)()
            done[name] += 1
            if name.startswith("kill"):
                for ours, _ in pipes:
                    ours.send("calm")
        for ours, _ in pipes:
            ours.send("over")
        for client in clients:
            _, counted, faults = client.hear("done")
            assert faults == {}
            codes.update(counted)
        print(f"{scheme}: {dict(done)}, {sum(codes.values())} calls: {dict(codes)}")
        assert codes["OK"]
        with localrpc.insecure_channel(target) as channel:
            echo: Any = channel.unary_unary("/chaos/echo")
            assert echo(b"x", timeout=PATIENCE, wait_for_ready=True) == b"x"
            await_that(lambda: live_calls(channel) == 0, "no call at the client")
        assert served.stop() == 0
    assert [path.name for path in folder.iterdir() if path.is_socket()] == []

"""kill -9 at any step, of the server, the client or both: the next start leaves nothing of them.

Both go through bind, handshake, messages, replies and close over and over. The
kill comes at a random moment after one of them has said where it is. 100 kills
of each target at full length (LOCALRPC_SOAK=full), a few in an ordinary run;
LOCALRPC_SEED has a run again. Seed and counts are printed: `pytest -s`.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import threading
from collections import Counter
from typing import Any

import grpc
import pytest

import localrpc
from tests.peers import census, processes
from tests.peers.journal import PATIENCE, Pen
from tests.peers.processes import Peer
from tests.peers.scenes import Stage
from tests.peers.station import ANY_SIZE, Station

FULL = os.environ.get("LOCALRPC_SOAK") == "full"
KILLS = 100 if FULL else 2
STALLED = 3
"""Exit code of a client whose call did not end: it did not notice the death."""
STEPS = {
    "server": ("binding", "serving", "entered", "left", "stopping"),
    "client": ("dialling", "calling", "closing"),
}
DELAYS = (0.0, 0.0001, 0.001, 0.01)
"""Seconds: a kill comes at most one of these after the step was reported."""

pytestmark = pytest.mark.timeout(1800 if FULL else 120)


class Until:
    """Until SIGTERM. Not an Event: a handler that sets one may find its lock taken below it."""

    def __init__(self) -> None:
        self.over = False
        signal.signal(signal.SIGTERM, self._end)

    def _end(self, *_: object) -> None:
        self.over = True


class Brief:
    """Says each word a few times only: the test reads one side's pipe and not the other's."""

    def __init__(self, pen: Pen) -> None:
        self._pen = pen
        self._left = Counter(dict.fromkeys((*STEPS["server"], *STEPS["client"]), 50))

    def say(self, *words: object) -> None:
        word = str(words[0])
        if self._left[word] > 0:
            self._left[word] -= 1
            self._pen.say(word)


def serve_in_turns(target: str, seed: int, pen: Pen) -> None:
    """A server that starts and stops all the time."""
    draw, until, pause, pen = random.Random(seed), Until(), threading.Event(), Brief(pen)
    while not until.over:
        pen.say("binding")
        station = Station(target, pen, workers=4)
        pen.say("serving")
        pause.wait(draw.random() * 0.05)
        pen.say("stopping")
        station.stop()


def call(channel: Any, draw: random.Random) -> None:
    message = bytes(draw.choice((0, 100, 30_000, 1 << 20)))
    kind = draw.randrange(4)
    if kind == 0:
        channel.unary_unary("/station/echo")(message, timeout=PATIENCE)
    elif kind == 1:
        stream = channel.unary_stream("/station/produce")(b"%d" % len(message), timeout=PATIENCE)
        for _ in range(draw.randrange(5)):
            next(stream)
        stream.cancel()
    elif kind == 2:
        channel.stream_unary("/station/consume")(iter([message] * 3), timeout=PATIENCE)
    else:
        list(channel.stream_stream("/station/mirror")(iter([message] * 3), timeout=PATIENCE))


def call_in_turns(target: str, seed: int, pen: Pen) -> None:
    """A client that connects, calls and closes all the time; its server may not be there."""
    draw, until, pen = random.Random(seed), Until(), Brief(pen)
    while not until.over:
        pen.say("dialling")
        with localrpc.insecure_channel(target, ANY_SIZE) as channel:
            for _ in range(draw.randrange(1, 5)):
                pen.say("calling")
                try:
                    call(channel, draw)
                except grpc.RpcError as error:
                    failed: Any = error
                    if failed.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                        sys.exit(STALLED)
            pen.say("closing")


def kill_at_random(target: str, draw: random.Random) -> tuple[str, str]:
    """Where a process was, and which one was killed."""
    side = draw.choice(tuple(STEPS))
    step = draw.choice(STEPS[side])
    victims = draw.choice((("server",), ("client",), ("server", "client")))
    repeats, delay = draw.randrange(1, 4), draw.random() * draw.choice(DELAYS)
    with (
        Peer(serve_in_turns, target, draw.randrange(1 << 30)) as server,
        Peer(call_in_turns, target, draw.randrange(1 << 30)) as client,
    ):
        peers = {"server": server, "client": client}
        for _ in range(repeats):
            peers[side].hear(step)
        threading.Event().wait(delay)
        for name in victims:
            peers[name].kill()
        for name, peer in peers.items():
            peer.journal.close()  # no process reads it now: it must not fill up
            if name in victims:
                assert peer.join() == -signal.SIGKILL
            else:
                peer.signal(signal.SIGTERM)
                # Or it had not even begun.
                left = (0, -signal.SIGTERM)
                assert peer.join() in left, f"{name} after the death of {victims} at {step}"
    return f"{side} {step}", "+".join(victims)


def start_again(target: str) -> None:
    """On the same name; and end as one should."""
    with processes.server(target) as server, Stage(target) as stage:
        echo: Any = stage.channel.unary_unary("/station/echo")
        assert echo(b"x", timeout=PATIENCE) == b"x"
        server.signal(signal.SIGTERM)
        server.join()


def test_the_next_start_removes_what_dead_processes_left(target: str) -> None:
    seed = int(os.environ.get("LOCALRPC_SEED", 0)) or random.SystemRandom().randrange(1 << 30)
    draw = random.Random(seed)
    where: Counter[str] = Counter()
    whom: Counter[str] = Counter()
    print(f"\n{target}: LOCALRPC_SEED={seed}", flush=True)
    kill_at_random(target, draw)  # have what is made once made
    start_again(target)
    gc.collect()
    before = census.take()
    for number in range(KILLS):
        step, victims = kill_at_random(target, draw)
        start_again(target)
        where[step] += 1
        whom[victims] += 1
        try:
            census.await_same(before)
        except AssertionError as error:
            raise AssertionError(f"kill {number}, {victims} at {step}: {error}") from None
    print(f"{target}: {KILLS} kills, nothing left: {dict(whom)}, {dict(where)}")

"""Everything at once: many busy clients, and a server that is killed, stopped and restarted.

The oracle looks at each call alone: it ends once, not later than its deadline and the slack
of a loaded machine, and with a status that its own history allows. OK brings what was asked
for; CANCELLED comes to calls that were cancelled; DEADLINE_EXCEEDED to calls whose deadline has
passed; UNAVAILABLE only during, or just after, trouble with the server; RESOURCE_EXHAUSTED only
from a limit that the server has. At the end nothing of a call is left in server or client,
and both still serve and call.

Some seconds a target in an ordinary run, 30 minutes at full length (LOCALRPC_SOAK=full).
LOCALRPC_SEED has a run's draws again. Seed and counts are printed: `pytest -s`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import random
import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

import localrpc
from localrpc.calls.keeping import MOST as KEPT
from tests.concurrency.engines import live_calls
from tests.peers.journal import PATIENCE, Pen
from tests.peers.processes import Peer
from tests.peers.scenes import await_that
from tests.peers.station import ANY_SIZE
from tests.places import most_clients

FULL = os.environ.get("LOCALRPC_SOAK") == "full"
SECONDS = 1800.0 if FULL else 1.5
PROCESSES = 3
CLIENTS = 150 if FULL else 30
SLACK = 15.0
"""Seconds by which a call may be late: the machine has more to do than it has cores."""
AFTERMATH = 5.0
"""Seconds after a trouble's end for which a call may still fail of it."""
TIMEOUTS = (0.001, 0.005, 0.02, 0.2, 2.0, 5.0)
SIZES = (0, 10, 1000, 30_000, 40_000, 300_000, 1 << 20)
LIMITS = (("localrpc.max_waiting_calls_per_user", 40),)
Code = grpc.StatusCode

pytestmark = pytest.mark.timeout(SECONDS + 300)


def most_descriptors() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


# The server: handlers that answer at once, late, in parts, or after the end.


def _wait_a_little(context: grpc.ServicerContext, seconds: float) -> None:
    over = threading.Event()
    if context.add_callback(over.set):
        over.wait(seconds)


def _late(request: bytes, context: grpc.ServicerContext) -> bytes:
    """Continues to use its call, whatever has become of it."""
    _wait_a_little(context, 0.05)
    context.set_trailing_metadata((("late", "yes"),))
    return request


def _repeat(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    for _ in range(5):
        yield request


def _mirror(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    yield from requests


def _count(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
    return b"%d" % sum(map(len, requests))


def handlers() -> grpc.GenericRpcHandler:
    handlers: Any = {
        "echo": grpc.unary_unary_rpc_method_handler(lambda request, context: request),
        "late": grpc.unary_unary_rpc_method_handler(_late),
        "repeat": grpc.unary_stream_rpc_method_handler(_repeat),
        "count": grpc.stream_unary_rpc_method_handler(_count),
        "mirror": grpc.stream_stream_rpc_method_handler(_mirror),
    }
    return grpc.method_handlers_generic_handler("chaos", handlers)


def serve(target: str, pen: Pen) -> None:
    """A process's whole life: SIGTERM stops it with grace, SIGUSR1 makes it start anew."""
    most_descriptors()
    words = {signal.SIGTERM, signal.SIGUSR1}
    signal.pthread_sigmask(signal.SIG_BLOCK, words)  # in all threads to come
    while True:
        pool = futures.ThreadPoolExecutor(8)
        server = localrpc.server(pool, (handlers(),), options=(*ANY_SIZE, *LIMITS))
        server.add_insecure_port(target)
        server.start()
        pen.say("serving")
        word = signal.sigwait(words)
        server.stop(2.0).wait()
        pool.shutdown(wait=True)
        if word == signal.SIGTERM:
            left = live_calls(server)
            pen.say("stopped", left)
            return


# A client: calls at random, and judges each.


class Attempt:
    """One call from its beginning to its end, and what is allowed to become of it."""

    def __init__(self, channel: Any, draw: random.Random) -> None:
        self.channel = channel
        self.draw = draw
        self.size = draw.choice(SIZES)
        self.message = bytes([draw.randrange(256)]) * self.size
        self.timeout = draw.choice(TIMEOUTS)
        self.cancels = draw.random() < 0.15
        self.kind = ""
        self.began = time.monotonic()

    def make(self) -> None:
        kinds = (self.unary, self.future, self.download, self.upload, self.both)
        make = self.draw.choice(kinds)
        self.kind = make.__name__
        make()

    def unary(self) -> None:
        name = self.draw.choice(("echo", "late"))
        call = self.channel.unary_unary(f"/chaos/{name}")
        assert call(self.message, timeout=self.timeout) == self.message

    def future(self) -> None:
        call = self.channel.unary_unary("/chaos/echo").future(self.message, timeout=self.timeout)
        call.add_done_callback(lambda _: None)
        if self.cancels:
            call.cancel()
        assert call.result(timeout=self.timeout + SLACK) == self.message

    def download(self) -> None:
        call = self.channel.unary_stream("/chaos/repeat")(self.message, timeout=self.timeout)
        if self.cancels:
            next(call)
            call.cancel()
        assert list(call) == [self.message] * 5

    def upload(self) -> None:
        call = self.channel.stream_unary("/chaos/count")
        assert call(iter([self.message] * 3), timeout=self.timeout) == b"%d" % (3 * self.size)

    def both(self) -> None:
        requests = iter([self.message] * 3)
        call = self.channel.stream_stream("/chaos/mirror")(requests, timeout=self.timeout)
        if self.cancels:
            next(call)
            call.cancel()
        assert list(call) == [self.message] * 3

    def judge(self, code: grpc.StatusCode, details: str, troubled: Callable[[float], bool]) -> None:
        took = time.monotonic() - self.began
        assert took < self.timeout + SLACK, (
            f"{took:.1f} s for a deadline of {self.timeout} s: {self.kind} of {self.size} bytes, "
            f"{code}, {details}"
        )
        if code is Code.DEADLINE_EXCEEDED:
            assert took >= self.timeout - 0.001, f"after {took:.4f} of {self.timeout} s"
        elif code is Code.CANCELLED:
            assert self.cancels, details
        elif code is Code.RESOURCE_EXHAUSTED:
            assert "max_waiting_calls_per_user" in details, details
        else:
            assert code is Code.UNAVAILABLE, (code, details)
            if self.kind in ("upload", "both") and 3 * self.size > KEPT:
                return  # more than is kept to be sent again
            assert troubled(self.began), f"{self.kind}, without trouble: {details}"


class Client(threading.Thread):
    """A channel of its own, and now and then another one."""

    def __init__(
        self, target: str, seed: int, over: threading.Event, troubled: Callable[[float], bool]
    ) -> None:
        super().__init__()
        self.target, self.draw = target, random.Random(seed)
        self.over, self.troubled = over, troubled
        self.codes: Counter[str] = Counter()
        self.fault: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.over.is_set():
                with localrpc.insecure_channel(self.target, ANY_SIZE) as channel:
                    for _ in range(self.draw.choice((1, 20, 200))):
                        if self.over.is_set():
                            break
                        self.codes[self.attempt(channel)] += 1
        except BaseException as error:
            self.fault = error
            self.over.set()

    def attempt(self, channel: Any) -> str:
        attempt = Attempt(channel, self.draw)
        try:
            attempt.make()
        except grpc.FutureCancelledError:
            assert attempt.cancels
            return "CANCELLED"
        except grpc.RpcError as error:
            failed: Any = error
            attempt.judge(failed.code(), failed.details(), self.troubled)
            if failed.code() is Code.UNAVAILABLE:
                self.over.wait(0.01)  # there is no server: leave the others the processor
            return str(failed.code().name)
        return "OK"


def call_at_random(target: str, count: int, seed: int, words: Any, pen: Pen) -> None:
    """A process's whole life as `count` clients, informed of trouble through the pipe `words`."""
    most_descriptors()
    over = threading.Event()
    last: list[float] = [time.monotonic()]
    """When there was trouble last; infinite while there is."""

    def troubled(began: float) -> bool:
        return last[0] + AFTERMATH >= began

    clients = [Client(target, seed + number, over, troubled) for number in range(count)]
    for client in clients:
        client.start()
    pen.say("calling")
    while True:
        # A kill is announced before it is done, and its end afterwards.
        try:
            word = words.recv() if words.poll(0.2) else None
        except EOFError:
            return
        if word == "trouble":
            last[0] = float("inf")
            words.send("heard")
        elif word == "calm":
            last[0] = time.monotonic()
        elif word == "over" or over.is_set():
            break
    over.set()
    faulthandler.dump_traceback_later(SLACK / 2)  # what is late, and where it waits
    codes: Counter[str] = Counter()
    for client in clients:
        client.join()
    faulthandler.cancel_dump_traceback_later()
    for client in clients:
        codes.update(client.codes)
    faults = Counter(repr(client.fault) for client in clients if client.fault is not None)
    pen.say("done", dict(codes), dict(faults))


# The troubles, all of the server.


class Trouble:
    def __init__(self, target: str) -> None:
        self.target = target
        self.server = Peer(serve, target)
        self.server.hear("serving")

    def kill(self) -> None:
        self.server.kill()
        self.server.join()
        self.server.__exit__()
        self.server = Peer(serve, self.target)
        self.server.hear("serving")

    def freeze(self) -> None:
        self.server.stop()
        time.sleep(0.3)  # the time that it is away is what is tried
        self.server.go_on()

    def restart(self) -> None:
        self.server.signal(signal.SIGUSR1)
        self.server.hear("serving")


def test_every_call_ends_once_with_what_its_history_allows(target: str) -> None:
    from multiprocessing import Pipe

    seed = int(os.environ.get("LOCALRPC_SEED", 0)) or random.SystemRandom().randrange(1 << 30)
    print(f"\n{target}: LOCALRPC_SEED={seed}", flush=True)
    draw, until = random.Random(seed), time.monotonic() + SECONDS
    count = most_clients(target, CLIENTS) // PROCESSES or 1
    troubles: Counter[str] = Counter()
    trouble = Trouble(target)
    pipes = [Pipe() for _ in range(PROCESSES)]
    clients = [
        Peer(call_at_random, target, count, seed + 1000 * number, theirs)
        for number, (_, theirs) in enumerate(pipes)
    ]
    try:
        for client in clients:
            client.hear("calling")
        while time.monotonic() < until:
            time.sleep(draw.random())  # calm, in which nothing may fail
            name = draw.choice(("kill", "freeze", "restart", "restart"))
            for ours, _ in pipes:
                ours.send("trouble")
            for client, (ours, _) in zip(clients, pipes, strict=True):
                assert ours.poll(PATIENCE), f"no answer: {client.hear('done')}"
                ours.recv()
            getattr(trouble, name)()
            troubles[name] += 1
            for ours, _ in pipes:
                ours.send("calm")
        for ours, _ in pipes:
            ours.send("over")
        codes: Counter[str] = Counter()
        for client in clients:
            _, said, faults = client.hear("done")
            assert faults == {}
            codes.update(said)
        print(f"{target}: {dict(troubles)}, {sum(codes.values())} calls: {dict(codes)}")
        assert codes["OK"]
        with localrpc.insecure_channel(target) as channel:
            echo: Any = channel.unary_unary("/chaos/echo")
            assert echo(b"x", timeout=PATIENCE, wait_for_ready=True) == b"x"
            await_that(lambda: live_calls(channel) == 0, "no call at the client")
        trouble.server.signal(signal.SIGTERM)
        assert trouble.server.hear("stopped") == ("stopped", 0)
        assert trouble.server.join() == 0
    finally:
        for client in clients:
            with contextlib.suppress(Exception):
                client.__exit__()
        trouble.server.__exit__()

"""Count primes in several processes, over each transport in turn.

Run: python run.py [--over NAME]... [--workers N] [--below N]
"""

from __future__ import annotations

import argparse
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import grpc
from generated.gather_localrpc import WorkerStub
from generated.gather_pb2 import Nothing, Part, Range, Seen, State
from primes import Found, join, look_into
from worker import add_worker

import localrpc

HERE = Path(__file__).parent
PATIENCE = 60.0
PIECES = 12
"""Ranges for each worker, so that a fast one can take more."""

# The target template of each way; a worker listens there. "pipe" workers are forked instead.
TARGETS: dict[str, str] = {
    "shm": "shm:{name}",
    "unix": "unix:{directory}/{name}.sock",
    "unix-abstract": "unix-abstract:{name}",
    "fifo": "pipe:{directory}/{name}.fifo",
    "mq": "mq:{name}",
    "sysvmq": "sysvmq:{name}",
    "file": "file:{directory}/{name}.spool",
    "tcp": "tcp:127.0.0.1:0",
    "grpc": "grpc:127.0.0.1:0",
}
WAYS = ("pipe", *TARGETS)


@dataclass
class Colleague:
    """A worker as seen by the process that gathers the results."""

    stub: WorkerStub
    done: int = 0
    state: State = field(default_factory=State)
    mail: queue.SimpleQueue[State | None] = field(default_factory=queue.SimpleQueue)
    seen: Seen = field(default_factory=Seen)


@dataclass(frozen=True)
class Outcome:
    way: str
    seconds: float
    found: Found
    colleagues: list[Colleague]


@contextmanager
def forked(workers: int, directory: Path) -> Iterator[list[grpc.Channel]]:
    """Fork children that share only pipes with us; closing a channel ends one."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(localrpc.fork_channel(partial(add_worker, number)))
            for number in range(1, workers + 1)
        ]


@contextmanager
def spawned(template: str, workers: int, directory: Path) -> Iterator[list[grpc.Channel]]:
    """Start separate programs, which other processes can call as well."""
    targets = [
        template.format(directory=directory, name=f"{directory.name}-{number}")
        for number in range(1, workers + 1)
    ]
    with ExitStack() as stack:
        programs: list[subprocess.Popen[str]] = []
        for number, target in enumerate(targets, 1):
            command = [sys.executable, str(HERE / "worker.py"), str(number), target]
            program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            programs.append(stack.enter_context(program))
            stack.callback(program.terminate)
        # A free port that we looked for could be another program's before the worker has it.
        targets = [
            f"{target.removesuffix('0')}{port_of(program)}" if target.endswith(":0") else target
            for target, program in zip(targets, programs, strict=True)
        ]
        yield [stack.enter_context(localrpc.insecure_channel(target)) for target in targets]


def port_of(program: subprocess.Popen[str]) -> int:
    """Return the port that a worker prints when it listens."""
    assert program.stdout is not None
    return int(program.stdout.readline())


def gather(way: str, workers: int, below: int, directory: Path) -> Outcome:
    opened = (
        forked(workers, directory) if way == "pipe" else spawned(TARGETS[way], workers, directory)
    )
    with opened as channels, futures.ThreadPoolExecutor(3 * workers) as pool:
        team = [Colleague(WorkerStub(channel)) for channel in channels]
        board = threading.Condition()
        # They have just been started: the first call waits for them.
        watches = [
            colleague.stub.Watch(Nothing(), timeout=PATIENCE, wait_for_ready=True)
            for colleague in team
        ]
        for watch in watches:
            watch.initial_metadata()
        tells = [
            colleague.stub.Tell.future(iter(colleague.mail.get, None), timeout=PATIENCE)
            for colleague in team
        ]
        pairs = zip(team, watches, strict=True)
        watchers = [pool.submit(relay, watch, one, team, board) for one, watch in pairs]

        begun = time.perf_counter()
        tasks = deal(below, workers)
        lock = threading.Lock()
        counters = [pool.submit(count, one, tasks, lock) for one in team]
        parts = [part for counter in counters for part in counter.result()]
        seconds = time.perf_counter() - begun

        with board:
            known = board.wait_for(lambda: all(c.state.ranges == c.done for c in team), PATIENCE)
        assert known, "a worker's last state did not arrive"
        for watch in watches:
            watch.cancel()
        for watcher in watchers:
            watcher.result()
        for colleague, tell in zip(team, tells, strict=True):
            colleague.mail.put(None)
            colleague.seen = tell.result()
    return Outcome(way, seconds, join(map(as_found, parts)), team)


def deal(below: int, workers: int) -> Iterator[Range]:
    size = max(1, -(-below // (workers * PIECES)))
    for begin in range(0, below, size):
        yield Range(begin=begin, end=min(begin + size, below))


def count(one: Colleague, tasks: Iterator[Range], lock: threading.Lock) -> list[Part]:
    """Give one worker the next range as long as there are any."""
    parts: list[Part] = []
    while True:
        with lock:
            task = next(tasks, None)
        if task is None:
            return parts
        parts.append(one.stub.Count(task, timeout=PATIENCE))
        one.done += 1


def relay(
    watch: Iterator[State], one: Colleague, team: list[Colleague], board: threading.Condition
) -> None:
    """Tell the others the states that one worker reports."""
    try:
        for state in watch:
            for other in team:
                if other is not one:
                    other.mail.put(state)
            with board:
                one.state = state
                board.notify_all()
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.CANCELLED:
            raise


def as_found(part: Part) -> Found:
    return Found(
        part.range.begin,
        part.range.end,
        part.count,
        part.sum,
        part.first,
        part.last,
        part.gap,
        part.gap_after,
    )


def show_team(outcome: Outcome) -> None:
    how = "forked" if outcome.way == "pipe" else "started as programs"
    print(f"\n{outcome.way}: {len(outcome.colleagues)} workers, {how}")
    most = max(one.done for one in outcome.colleagues)
    for one in outcome.colleagues:
        bar = "#" * round(20 * one.done / most)
        print(
            f"  {one.state.worker:>2}  pid {one.state.pid:<8} {bar:<20} {one.done:>4} ranges"
            f" {one.state.primes:>10,} primes   heard {one.seen.states:>3} times from others,"
            f" skipped {one.seen.spared:>3} gaps"
        )


def show_found(found: Found) -> None:
    print(
        f"  together {found.count:,} primes below {found.end:,}, their sum {found.sum:,};"
        f" the longest gap is {found.gap}, after {found.gap_after:,}"
    )


def show_times(outcomes: list[Outcome], alone: float) -> None:
    print(f"\n{'':<15}{'seconds':>9}{'times faster':>15}{'calls':>8}")
    print(f"{'one process':<15}{alone:>9.3f}")
    for outcome in outcomes:
        calls = sum(one.done for one in outcome.colleagues)
        faster = alone / outcome.seconds
        print(f"{outcome.way:<15}{outcome.seconds:>9.3f}{faster:>15.2f}{calls:>8}")
    print(
        f"\nThis machine gives us {len(os.sched_getaffinity(0))} processors: several processes can"
        " be at most that many\ntimes faster, and one Python process is about as fast as one"
        " processor, however many threads it has."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Count primes in several processes.")
    parser.add_argument("--over", action="append", choices=WAYS, help="May be repeated.")
    parser.add_argument("--workers", type=int, default=4, metavar="N")
    parser.add_argument("--below", type=int, default=10_000_000, metavar="N")
    arguments = parser.parse_args()
    if arguments.workers < 1 or arguments.below < 1:
        parser.error("--workers and --below are at least 1")

    missing = {offer.scheme: offer.missing for offer in localrpc.transports() if offer.missing}
    outcomes: list[Outcome] = []
    # Fork first: grpcio's threads would not exist in the children.
    for way in WAYS:
        if arguments.over and way not in arguments.over:
            continue
        scheme = TARGETS.get(way, way).partition(":")[0]
        if scheme in missing:
            print(f"\n{way}: {missing[scheme]}")
            continue
        with tempfile.TemporaryDirectory(prefix="gather-") as directory:
            outcome = gather(way, arguments.workers, arguments.below, Path(directory))
        show_team(outcome)
        show_found(outcome.found)
        outcomes.append(outcome)
    begun = time.perf_counter()
    alone = look_into(0, arguments.below)
    seconds = time.perf_counter() - begun
    for outcome in outcomes:
        assert outcome.found == alone, f"{outcome.way}: {outcome.found}, and alone: {alone}"
    show_times(outcomes, seconds)


if __name__ == "__main__":
    main()

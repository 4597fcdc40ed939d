"""A worker: counts primes, reports its state, and receives the others' states.

Run: python worker.py NUMBER TARGET

Prints the port at which it listens, which with port 0 the system has chosen; with a target that
has no port it prints 1, as `add_insecure_port` returns it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from concurrent import futures

import grpc
from generated.gather_localrpc import WorkerServicer, add_WorkerServicer_to_server
from generated.gather_pb2 import Nothing, Part, Range, Seen, State
from primes import look_into

import localrpc


class Worker(WorkerServicer):
    def __init__(self, number: int) -> None:
        self._changed = threading.Condition()
        self._state = State(worker=number, pid=os.getpid())
        self._longest = 0
        """The longest gap that any worker has found, as far as this one knows."""
        self._spared = 0

    def Count(self, request: Range, context: grpc.ServicerContext) -> Part:
        found = look_into(request.begin, request.end)
        part = Part(
            range=request,
            count=found.count,
            sum=found.sum,
            first=found.first,
            last=found.last,
            gap=found.gap,
            gap_after=found.gap_after,
        )
        with self._changed:
            if found.gap < self._longest:
                part.gap = part.gap_after = 0
                self._spared += 1
            self._longest = max(self._longest, found.gap)
            # A new one, because the old one may be being sent.
            self._state = State(
                worker=self._state.worker,
                pid=self._state.pid,
                ranges=self._state.ranges + 1,
                primes=self._state.primes + found.count,
                gap=max(self._state.gap, found.gap),
            )
            self._changed.notify_all()
        return part

    def Watch(self, request: Nothing, context: grpc.ServicerContext) -> Iterator[State]:
        context.add_callback(self._wake)
        seen = None
        while True:
            with self._changed:
                while self._state is seen and context.is_active():
                    self._changed.wait()
                seen = self._state
            if not context.is_active():
                return
            yield seen

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def Tell(self, request_iterator: Iterator[State], context: grpc.ServicerContext) -> Seen:
        states = 0
        for other in request_iterator:
            states += 1
            with self._changed:
                self._longest = max(self._longest, other.gap)
        return Seen(states=states, spared=self._spared)


def add_worker(number: int, server: grpc.Server) -> None:
    add_WorkerServicer_to_server(Worker(number), server)


def main(number: str, target: str) -> None:
    server = localrpc.server(futures.ThreadPoolExecutor(max_workers=4))
    add_worker(int(number), server)
    port = server.add_insecure_port(target)
    server.start()
    print(port, flush=True)
    localrpc.stop_on_signals(server, grace=1)
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])

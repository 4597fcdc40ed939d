"""Servers of one process that are the workers of a group. tests/workers has real ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

import grpc

import localrpc
from localrpc.transports import parse_target, transport_for

PATIENCE = 30.0
KINDS = ("shm-eventfd", "unix", "unix-abstract")


def eventually(condition: Callable[[], bool], what: str) -> None:
    until = monotonic() + PATIENCE
    while not condition():
        assert monotonic() < until, what
        threading.Event().wait(0.002)


def place_of(target: str, number: int) -> str:
    """The target of one worker of the group at `target`."""
    address = parse_target(target)
    own = transport_for(address.scheme).worker_address(address, number)
    assert own is not None
    return str(own)


class Worker:
    """A server; number 1 has the group's place, too."""

    def __init__(self, target: str, number: int, group: str = "g") -> None:
        self.name = b"%d" % number
        self.release = threading.Event()
        self.holding = threading.Semaphore(0)
        options = [("localrpc.worker", f"{group}.{number}")]
        self.server: Any = localrpc.server(
            ThreadPoolExecutor(12), (self.handlers(),), options=options
        )
        self.place = place_of(target, number)
        self.server.add_insecure_port(self.place)
        if number == 1:
            self.server.add_insecure_port(target)
        self.server.start()

    def handlers(self) -> grpc.GenericRpcHandler:
        def name(request: bytes, context: grpc.ServicerContext) -> bytes:
            return self.name

        def hold(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.holding.release()
            assert self.release.wait(PATIENCE)
            return self.name

        def stream(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            over = threading.Event()
            if context.add_callback(over.set):
                yield self.name
                assert over.wait(PATIENCE)

        return grpc.method_handlers_generic_handler(
            "s",
            {
                "name": grpc.unary_unary_rpc_method_handler(name),
                "hold": grpc.unary_unary_rpc_method_handler(hold),
                "stream": grpc.unary_stream_rpc_method_handler(stream),
            },
        )

    @property
    def clients(self) -> int:
        return len(self.server._serving.connections)

    def stop(self) -> None:
        self.release.set()
        self.server.stop(None).wait()


class Group:
    def __init__(self, target: str, count: int) -> None:
        self.target = target
        self.workers = {number: Worker(target, number) for number in range(1, count + 1)}

    def __getitem__(self, number: int) -> Worker:
        return self.workers[number]

    def places(self) -> list[str]:
        """The target of each worker."""
        return [worker.place for worker in self.workers.values()]

    def stop(self) -> None:
        for worker in self.workers.values():
            worker.stop()

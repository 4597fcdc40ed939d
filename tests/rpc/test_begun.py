"""A server that is killed fails the calls that its handlers have begun, and no others.

In a ring it has counted those. Calls that waited for a thread go to the next server, once each.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

import localrpc.aio
from localrpc.observe import processes
from tests.conftest import FULL, fresh_target
from tests.peers.journal import PATIENCE
from tests.rpc.house import await_that

RINGS = ["shm-eventfd", "shm-futex", "shm-posix", "shm-sysv"]
WAITING = 3

# Its one thread takes a call, says which, and never answers.
HOLDS = """
import os, sys, threading
from concurrent import futures
import grpc, localrpc

def hold(request, context):
    first = request if isinstance(request, bytes) else b"".join(request)
    os.write(1, first + b"\\n")
    threading.Event().wait()

HANDLERS = {
    "hold": grpc.unary_unary_rpc_method_handler(hold),
    "upload": grpc.stream_unary_rpc_method_handler(hold),
    "down": grpc.unary_stream_rpc_method_handler(hold),
}
server = localrpc.server(futures.ThreadPoolExecutor(1))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("s", HANDLERS),))
server.add_insecure_port(sys.argv[1])
server.start()
os.write(1, b"up\\n")
threading.Event().wait()
"""

AIO_HOLDS = """
import asyncio, os, sys
import grpc, localrpc.aio

async def hold(request, context):
    os.write(1, request + b"\\n")
    await asyncio.Event().wait()

async def main():
    server = localrpc.aio.server()
    handlers = {"hold": grpc.unary_unary_rpc_method_handler(hold)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("s", handlers),))
    server.add_insecure_port(sys.argv[1])
    await server.start()
    os.write(1, b"up\\n")
    await asyncio.Event().wait()

asyncio.run(main())
"""


class Holding:
    """A server in a process of its own."""

    def __init__(self, program: str, target: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, target], stdout=subprocess.PIPE
        )
        self.hear(b"up\n")

    def hear(self, line: bytes) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == line

    def waiting(self) -> int:
        """Calls that no thread has taken."""
        return sum(
            each.counts.waiting
            for process in processes()
            if process.pid == self._process.pid
            for each in process.page.endpoints
        )

    def kill(self) -> None:
        self._process.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.wait()


@contextmanager
def next_server(target: str) -> Iterator[list[bytes]]:
    """The requests that it gets; it answers them at once."""
    got: list[bytes] = []

    def answer(request: Any, context: grpc.ServicerContext) -> bytes:
        got.append(request if isinstance(request, bytes) else b"".join(request))
        return got[-1]

    handlers: dict[str, Any] = {
        "hold": grpc.unary_unary_rpc_method_handler(answer),
        "upload": grpc.stream_unary_rpc_method_handler(answer),
        "down": grpc.unary_stream_rpc_method_handler(lambda r, c: iter([answer(r, c)])),
    }
    server = localrpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("s", handlers),))
    server.add_insecure_port(target)
    server.start()
    yield got
    server.stop(None).wait()


@pytest.fixture(params=RINGS if FULL else RINGS[:2])
def target(request: pytest.FixtureRequest, runtime_directory: str) -> str:
    return fresh_target(request.param, runtime_directory)


CALLS = {
    "unary": lambda channel, name: channel.unary_unary("/s/hold")(
        name, wait_for_ready=True, timeout=PATIENCE
    ),
    "future": lambda channel, name: (
        channel.unary_unary("/s/hold").future(name, wait_for_ready=True, timeout=PATIENCE).result()
    ),
    "upload": lambda channel, name: channel.stream_unary("/s/upload")(
        iter([name[:1], name[1:]]), wait_for_ready=True, timeout=PATIENCE
    ),
    "download": lambda channel, name: b"".join(
        channel.unary_stream("/s/down")(name, wait_for_ready=True, timeout=PATIENCE)
    ),
}


@pytest.mark.parametrize("kind", CALLS)
def test_only_begun_calls_fail_with_a_killed_server(target: str, kind: str) -> None:
    holding = Holding(HOLDS, target)
    try:
        with (
            localrpc.insecure_channel(target) as channel,
            futures.ThreadPoolExecutor(1 + WAITING) as pool,
        ):
            begun = pool.submit(CALLS[kind], channel, b"begun")
            holding.hear(b"begun\n")
            names = [b"call %d" % number for number in range(WAITING)]
            others = [pool.submit(CALLS[kind], channel, name) for name in names]
            await_that(lambda: holding.waiting() == WAITING, "the others to wait at the server")
            holding.kill()
            with next_server(target) as got:
                error: Any = begun.exception(PATIENCE)
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                assert [other.result(PATIENCE) for other in others] == names
            assert sorted(got) == names
    finally:
        holding.kill()


def test_the_same_with_an_asynchronous_client(target: str) -> None:
    async def run() -> None:
        async with localrpc.aio.insecure_channel(target) as channel:
            method: Any = channel.unary_unary("/s/hold")

            begun = asyncio.ensure_future(gathered(method, b"begun"))
            await asyncio.to_thread(holding.hear, b"begun\n")
            names = [b"call %d" % number for number in range(WAITING)]
            others = [asyncio.ensure_future(gathered(method, name)) for name in names]
            await asyncio.to_thread(
                await_that, lambda: holding.waiting() == WAITING, "the others to wait"
            )
            holding.kill()
            with next_server(target) as got:
                with pytest.raises(grpc.RpcError) as failed:
                    await begun
                assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
                assert await asyncio.gather(*others) == names
            assert sorted(got) == names

    holding = Holding(HOLDS, target)
    try:
        asyncio.run(run())
    finally:
        holding.kill()


async def gathered(method: Any, name: bytes) -> bytes:
    answer: bytes = await method(name, wait_for_ready=True, timeout=PATIENCE)
    return answer


def test_a_coroutine_that_has_begun_is_not_begun_again(target: str) -> None:
    holding = Holding(AIO_HOLDS, target)
    try:
        with (
            localrpc.insecure_channel(target) as channel,
            futures.ThreadPoolExecutor(1) as pool,
        ):
            begun = pool.submit(CALLS["unary"], channel, b"begun")
            holding.hear(b"begun\n")
            holding.kill()
            with next_server(target) as got:
                error: Any = begun.exception(PATIENCE)
                assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert got == []
    finally:
        holding.kill()

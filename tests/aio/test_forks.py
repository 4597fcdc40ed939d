"""What a forked child inherits."""

from __future__ import annotations

import asyncio
import os

import localrpc.aio

from .house import PATIENCE, serving, sync_serving


def test_a_child_connects_anew_with_the_parents_channel(distinct_two_process_target: str) -> None:
    channel = localrpc.aio.insecure_channel(distinct_two_process_target)

    async def call(message: bytes) -> None:
        echo = channel.unary_unary("/house/echo")
        assert await echo(message, timeout=PATIENCE) == message

    loop = asyncio.new_event_loop()
    with sync_serving(distinct_two_process_target):
        loop.run_until_complete(call(b"before"))
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                asyncio.run(call(b"child"))
                asyncio.run(channel.close())
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        loop.run_until_complete(call(b"after"))
        loop.run_until_complete(channel.close())
    loop.close()


def test_the_server_stays_the_parents(one_target: str) -> None:
    async def run() -> None:
        async with serving(one_target), localrpc.aio.insecure_channel(one_target) as channel:
            echo = channel.unary_unary("/house/echo")
            assert await echo(b"x") == b"x"
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
            assert await echo(b"y", timeout=PATIENCE) == b"y"
        # The name is free again: the child has taken nothing along.
        async with serving(one_target):
            assert True

    asyncio.run(run())

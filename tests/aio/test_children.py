"""Channels to child processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

import localrpc.aio
from localrpc.transports import to_child
from tests.gc.heap import uncollected
from tests.rpc.house import await_that
from tests.rpc.test_child_ends import TIMEOUTS, ends, stop_and_hang_up
from tests.rpc.test_children import (
    FACTS,
    SERVE,
    _importable,
    files_before,
    over_each,
)

from .house import PATIENCE, Handlers

__all__ = ["_importable", "files_before"]

Code = grpc.StatusCode


@over_each
def test_a_child_is_started_called_and_ended(
    target: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async def run() -> None:
        argv = [sys.executable, "-c", SERVE]
        async with localrpc.aio.spawn_channel(argv, target=target, stderr="tail") as channel:
            pid = await channel.unary_unary("/s/pid")(b"", timeout=PATIENCE)
            assert int(pid) == channel.pid
            assert channel.facts == FACTS[target]
            assert await channel.unary_unary("/s/show")(b"words") == b"words"
        assert await channel.wait(PATIENCE) == 0

    asyncio.run(run())
    assert capfd.readouterr() == ("print words\nwrite words\necho words\n", "")


def test_a_forked_child_serves_coroutines_until_its_channel_is_closed() -> None:
    async def ended(request: bytes, context: Any) -> bytes:
        os._exit(7)

    async def setup(server: aio.Server) -> None:
        await asyncio.sleep(0)
        server.add_generic_rpc_handlers((Handlers(),))
        handler: Any = grpc.unary_unary_rpc_method_handler(ended)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("end", {"now": handler}),)
        )

    async def run() -> None:
        async with localrpc.aio.fork_channel(setup) as channel:
            assert await channel.unary_unary("/house/echo")(b"x", timeout=PATIENCE) == b"x"
            with pytest.raises(aio.AioRpcError) as caught:
                await channel.unary_unary("/end/now")(b"", timeout=PATIENCE)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert await channel.wait(PATIENCE) == 7

    asyncio.run(run())


async def refusal(call: Any) -> Any:
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    return caught.value


@over_each
@pytest.mark.parametrize("kind", ["unary", "stream", "write"])
def test_a_call_in_which_the_child_is_killed_says_so(
    target: str, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async def run() -> None:
        async with localrpc.aio.fork_channel(ends, target=target, stderr="tail") as channel:
            await channel.unary_unary("/s/write")(b"one\ntwo\n", timeout=PATIENCE)
            call: Any
            if kind == "unary":
                error = await refusal(channel.unary_unary("/s/kill")(b"9", timeout=PATIENCE))
            elif kind == "stream":
                call = channel.unary_stream("/s/kill_in_stream")(b"", timeout=PATIENCE)
                assert await call.read() == b"begun"
                error = await refusal(call.read())
            else:
                call = channel.stream_unary("/s/kill_in_upload")(timeout=PATIENCE)
                await call.write(b"x")
                error = await refusal(call)
            how = f"the child process {channel.pid} is gone: it was killed by SIGKILL"
            assert error.code() is Code.UNAVAILABLE
            assert error.details() == f"{how}; the end of its standard error:\none\ntwo"
            later = await refusal(channel.unary_unary("/s/echo")(b"", timeout=PATIENCE))
            assert later.code() is Code.UNAVAILABLE
            assert later.details().endswith(f": {error.details()}")

    asyncio.run(run())
    assert capfd.readouterr().err == "one\ntwo\n"


@pytest.mark.parametrize(
    ("patience", "timeouts", "ending"),
    [
        (0.05, [None], (Code.UNAVAILABLE, "Socket closed")),
        (1000, TIMEOUTS, (Code.DEADLINE_EXCEEDED, "Deadline Exceeded")),
    ],
    ids=["a-moment", "deadline"],
)
def test_a_call_does_not_wait_for_the_end_of_a_child_that_has_only_hung_up(
    patience: float, timeouts: list[float | None], ending: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_child, "_LAST_WORDS", patience)

    async def run() -> None:
        async with localrpc.aio.fork_channel(ends, target="unix:", grace=0) as channel:
            hold: Any = channel.unary_stream("/s/hold_in_stream")
            calls = [hold(b"") for _ in range(2)]
            for call in calls:
                assert await call.read() == b"begun"
            for timeout in timeouts:
                call = hold(b"", timeout=timeout)
                with contextlib.suppress(aio.AioRpcError):
                    assert await call.read() == b"begun"
                    break
            stop_and_hang_up(channel.pid, channel._to_child)
            error = await refusal(call.read())
            assert (error.code(), error.details()) == ending
            if timeout is None:
                assert [await call.code() for call in calls] == [Code.UNAVAILABLE] * 2

    asyncio.run(run())


async def waiting(connector: Any) -> None:
    """Return once its calls wait for the end of the child."""
    while connector._loss is None:
        await asyncio.sleep(0.001)


def test_a_channel_may_be_closed_while_its_calls_wait_for_the_end_of_a_child(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(to_child, "_LAST_WORDS", 1000)

    async def run() -> None:
        channel = localrpc.aio.fork_channel(ends, target="unix:", grace=0)
        call: Any = channel.unary_stream("/s/hold_in_stream")(b"")
        assert await call.read() == b"begun"
        stop_and_hang_up(channel.pid, channel._to_child)
        reading = asyncio.ensure_future(call.read())
        await asyncio.wait_for(waiting(channel._binding.bound), PATIENCE)
        await channel.close()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await call.code() is Code.CANCELLED

    asyncio.run(run())


@over_each
@pytest.mark.parametrize("called", [True, False], ids=["called", "uncalled"])
def test_a_channel_without_references_ends_its_child(target: str, called: bool) -> None:
    async def run() -> int:
        channel = localrpc.aio.fork_channel(ends, target=target)
        if called:
            await channel.unary_unary("/s/echo")(b"", timeout=PATIENCE)
        return channel.pid

    with uncollected():
        pid = asyncio.run(run())
        await_that(lambda: not Path(f"/proc/{pid}").exists(), "the child to be waited for")

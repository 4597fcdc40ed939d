"""A channel of an event loop to a group of workers; see tests/rpc/test_spread.py."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import Counter
from collections.abc import Coroutine, Iterator
from typing import Any

import grpc
import pytest

import localrpc.aio
from tests.conftest import fresh_target
from tests.rpc.groups import KINDS, PATIENCE, Group, Worker, eventually


@pytest.fixture(params=KINDS)
def pair(request: pytest.FixtureRequest, runtime_directory: str) -> Iterator[Group]:
    group = Group(fresh_target(request.param, runtime_directory), 2)
    yield group
    group.stop()


class Client:
    def __init__(self, target: str) -> None:
        self.channel: Any = localrpc.aio.insecure_channel(target)
        self.name: Any = self.channel.unary_unary("/s/name")
        self.hold: Any = self.channel.unary_unary("/s/hold")
        self.stream: Any = self.channel.unary_stream("/s/stream")

    async def until_named(self, name: bytes) -> None:
        async def ask() -> None:
            while await self.name(b"") != name:
                await asyncio.sleep(0.001)

        await asyncio.wait_for(ask(), PATIENCE)

    async def reach(self, first: Worker, other: Worker) -> Any:
        """Be connected to both; return a call that keeps the first one busy."""
        busy = asyncio.ensure_future(self.hold(b""))
        await asyncio.to_thread(first.holding.acquire, timeout=PATIENCE)
        await self.until_named(other.name)
        return busy


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 2 * PATIENCE))


def test_calls_one_after_another_need_one_connection(pair: Group) -> None:
    async def main() -> None:
        client = Client(pair.target)
        assert {await client.name(b"") for _ in range(50)} == {b"1"}
        assert await client.stream(b"").read() == b"1"
        assert (pair[1].clients, pair[2].clients) == (1, 0)
        await client.channel.close()

    run(main())


def test_calls_and_streams_are_spread(pair: Group) -> None:
    async def main() -> None:
        client = Client(pair.target)
        busy = await client.reach(pair[1], pair[2])
        for _ in range(20):
            assert await client.name(b"") == b"2"
            assert await client.name(b"", metadata=(("a", "b"),)) == b"2"
            assert await client.name(b"", timeout=PATIENCE) == b"2"
        names = await asyncio.gather(*(client.name(b"") for _ in range(64)))
        assert set(names) <= {b"1", b"2"}
        streams = [client.stream(b"") for _ in range(6)]
        names = [await each.read() for each in streams]
        assert Counter(names) == {b"1": 3, b"2": 3}
        for each, name in zip(streams, names, strict=True):
            if name == b"2":
                each.cancel()
        second = client.channel._binding.bound.links.sessions[1].load
        while second.all_streams():  # until the worker has noticed
            await asyncio.sleep(0.001)
        more = [client.stream(b"") for _ in range(3)]
        assert [await each.read() for each in more] == [b"2"] * 3
        # Streams that are idle do not keep calls away.
        pair[1].release.set()
        assert await busy == b"1"
        assert await client.name(b"") == b"1"
        await client.channel.close()

    run(main())


def test_a_worker_that_stops_costs_no_call(pair: Group) -> None:
    async def main() -> None:
        client = Client(pair.target)
        busy = await client.reach(pair[1], pair[2])
        stopping = pair[1].server.stop(PATIENCE)
        for _ in range(20):
            assert await client.name(b"") == b"2"
            assert await client.stream(b"").read() == b"2"
        pair[1].release.set()
        assert await busy == b"1"
        await asyncio.to_thread(stopping.wait)
        assert await client.name(b"") == b"2"
        assert client.channel.get_state() is grpc.ChannelConnectivity.READY
        await asyncio.to_thread(pair[2].stop)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await client.name(b"")
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
        assert client.channel.get_state() is not grpc.ChannelConnectivity.READY
        await client.channel.close()

    run(main())


@pytest.mark.parametrize("how", ["close", "drop", "end of the loop"])
def test_a_channel_leaves_no_connection(pair: Group, how: str) -> None:
    sessions: list[weakref.ref[Any]] = []

    async def main() -> None:
        client = Client(pair.target)
        busy = await client.reach(pair[1], pair[2])
        pair[1].release.set()
        assert await busy == b"1"
        connector = client.channel._binding.bound
        sessions.extend(weakref.ref(each) for each in connector.links.sessions)
        assert len(sessions) == 2
        gc.disable()
        if how == "close":
            await client.channel.close()
        if how == "end of the loop":
            return
        del client, busy, connector
        while pair[1].clients or pair[2].clients:
            await asyncio.sleep(0.001)

    try:
        run(main())
        eventually(lambda: not (pair[1].clients or pair[2].clients), "both have ended")
        if how != "end of the loop":
            eventually(lambda: not any(ref() for ref in sessions), "nothing keeps them")
    finally:
        gc.enable()

"""Calls of every kind through asyncio, brought to a point where a peer is killed or stopped.

As scenes.py. A scene begins a call and returns a coroutine that raises the call's error.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from grpc import aio

import localrpc.aio
from tests.peers.journal import Pen
from tests.peers.scenes import FULL, LARGE, SMALL
from tests.peers.station import ANY_SIZE

Finish = Coroutine[Any, Any, object]


async def become(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what no event announces."""
    for _ in range(4000):
        if await condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it does not come about")


class Stage:
    """The client's side: the channel of the call, and the number of requests it has taken."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.sent = 0

    async def produced(self) -> int:
        """How many messages the server's handler has made."""
        return int(await self.channel.unary_unary("/station/produced")(b""))

    async def requests(self, message: bytes, count: int | None = None) -> AsyncIterator[bytes]:
        """`count` messages and then silence; endless without."""
        while count is None or self.sent < count:
            self.sent += 1
            yield message
        await asyncio.Event().wait()


async def until_over(call: Any) -> None:
    while await call.read() is not aio.EOF:
        pass


async def answer(call: Any) -> object:
    return await call


async def unary_in_its_handler(stage: Stage) -> Finish:
    return answer(stage.channel.unary_unary("/station/hold")(b""))


async def unary_large_request(stage: Stage) -> Finish:
    return answer(stage.channel.unary_unary("/station/hold")(bytes(LARGE)))


async def unary_large_answer(stage: Stage) -> Finish:
    call = stage.channel.unary_stream("/station/produce")(b"%d" % LARGE)
    assert len(await call.read()) == LARGE
    return until_over(call)


async def server_stream_that_waits(stage: Stage) -> Finish:
    call = stage.channel.unary_stream("/station/trickle")(b"")
    assert await call.read() == b"first"
    return until_over(call)


async def server_stream_out_of_credit(stage: Stage) -> Finish:
    call = stage.channel.unary_stream("/station/produce")(b"%d" % SMALL)

    async def full() -> bool:
        return await stage.produced() > FULL

    await become(full)
    return until_over(call)


async def client_stream_that_waits(stage: Stage) -> Finish:
    return answer(stage.channel.stream_unary("/station/consume")(stage.requests(b"x", 1)))


async def client_stream_out_of_credit(stage: Stage) -> Finish:
    call = stage.channel.stream_unary("/station/reads_nothing")(stage.requests(bytes(SMALL)))

    async def full() -> bool:
        return stage.sent > FULL

    await become(full)
    return answer(call)


async def client_stream_in_large_messages(stage: Stage) -> Finish:
    call = stage.channel.stream_unary("/station/consume")(stage.requests(bytes(LARGE)))

    async def begun() -> bool:
        return stage.sent > 1

    await become(begun)
    return answer(call)


async def both_streams_that_wait(stage: Stage) -> Finish:
    call = stage.channel.stream_stream("/station/mirror")(stage.requests(b"x", 1))
    assert await call.read() == b"x"
    return until_over(call)


async def both_streams_out_of_credit(stage: Stage) -> Finish:
    call = stage.channel.stream_stream("/station/flood")(stage.requests(bytes(SMALL)))

    async def full() -> bool:
        return stage.sent > FULL and await stage.produced() > FULL

    await become(full)
    return until_over(call)


@dataclass(frozen=True)
class Scene:
    begin: Callable[[Stage], Awaitable[Finish]]
    method: str
    entered: bool = True
    """False if the call may be killed before its handler is entered."""
    reads: bool = False
    """Its handler is inside the request iterator."""


_ALL = (
    Scene(unary_in_its_handler, "hold"),
    Scene(unary_large_request, "hold", entered=False),
    Scene(unary_large_answer, "produce"),
    Scene(server_stream_that_waits, "trickle"),
    Scene(server_stream_out_of_credit, "produce"),
    Scene(client_stream_that_waits, "consume", reads=True),
    Scene(client_stream_out_of_credit, "reads_nothing"),
    Scene(client_stream_in_large_messages, "consume", entered=False, reads=True),
    Scene(both_streams_that_wait, "mirror", reads=True),
    Scene(both_streams_out_of_credit, "flood"),
)
SCENES = {scene.begin.__name__: scene for scene in _ALL}


async def play(target: str, name: str, begun: Callable[[], object]) -> aio.AioRpcError | None:
    """Play a scene to its end; return the error of its call."""
    async with localrpc.aio.insecure_channel(target, ANY_SIZE) as channel:
        finish = await SCENES[name].begin(Stage(channel))
        begun()
        try:
            await finish
        except aio.AioRpcError as error:
            return error
        return None


def perform(target: str, name: str, pen: Pen) -> None:
    """A process's whole life as a client."""
    asyncio.run(play(target, name, lambda: pen.say("begun")))

"""Calls of every kind, brought to a point where a peer is to be killed or stopped.

A scene begins the call and returns what waits for its end: a function that
raises the call's error. `method` is whose handler says "entered".
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc

import localrpc
from tests.peers.journal import PATIENCE, Pen
from tests.peers.station import ANY_SIZE

SMALL = 16_000
LARGE = 8 << 20
WINDOW = 4 << 20
FULL = WINDOW // (SMALL + 64)
"""Messages that one window of credit takes."""

Finish = Callable[[], object]


def await_that(condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Wait for what no event announces."""
    pause = threading.Event()
    for _ in range(int(patience * 200)):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError(f"not within {patience} s: {what}")


@dataclass
class Stage:
    """The client's side. `freeze` stops the server, where that can be; `side` only looks."""

    target: str
    freeze: Callable[[], None] = lambda: None
    channel: Any = field(init=False)
    side: Any = field(init=False)
    sent: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.channel = localrpc.insecure_channel(self.target, ANY_SIZE)
        self.side = localrpc.insecure_channel(self.target)
        self.side.unary_unary("/station/echo")(b"", timeout=PATIENCE)

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        self.over.set()
        self.channel.close()
        self.side.close()

    def settle(self) -> None:
        """Have the channel's connection all that it will ever have: some comes with a sleep."""
        sleeper = self.channel.unary_unary("/station/hold").future(b"", timeout=0.02)
        assert sleeper.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED

    def produced(self, channel: Any) -> int:
        """How many messages the server's handler has made."""
        return int(channel.unary_unary("/station/produced")(b"", timeout=PATIENCE))

    def requests(self, message: bytes, *, count: int | None = None) -> Iterator[bytes]:
        """`count` messages and then silence; endless without."""
        while count is None or self.sent < count:
            self.sent += 1
            yield message
        self.over.wait(PATIENCE)


def unary_in_its_handler(stage: Stage) -> Finish:
    hold = stage.channel.unary_unary("/station/hold")
    return lambda: hold(b"")


def unary_future_in_its_handler(stage: Stage) -> Finish:
    future = stage.channel.unary_unary("/station/hold").future(b"")
    future.add_done_callback(lambda _: None)
    return lambda: future.result(PATIENCE)


def unary_large_request(stage: Stage) -> Finish:
    hold = stage.channel.unary_unary("/station/hold")
    stage.channel.unary_unary("/station/echo")(b"")
    stage.freeze()
    return lambda: hold(bytes(LARGE))


def unary_large_answer(stage: Stage) -> Finish:
    future = stage.channel.unary_unary("/station/answer").future(b"%d" % LARGE)
    # A thread that waits for the answer reads all of it, unless it stops coming.
    await_that(lambda: stage.produced(stage.side) == 1, "an answer")
    stage.freeze()
    return lambda: future.result(PATIENCE)


def server_stream_that_waits(stage: Stage) -> Finish:
    call = stage.channel.unary_stream("/station/trickle")(b"")
    assert next(call) == b"first"
    return lambda: next(call)


def server_stream_out_of_credit(stage: Stage) -> Finish:
    call = stage.channel.unary_stream("/station/produce")(b"%d" % SMALL)
    await_that(lambda: stage.produced(stage.channel) == FULL + 1, "a full window")
    return lambda: list(call)


def server_stream_in_a_large_message(stage: Stage) -> Finish:
    call = stage.channel.unary_stream("/station/produce")(b"%d" % LARGE)
    await_that(lambda: stage.produced(stage.side) == 1, "a large message")
    return lambda: list(call)


def client_stream_that_waits(stage: Stage) -> Finish:
    requests = stage.requests(b"x", count=1)
    future = stage.channel.stream_unary("/station/consume").future(requests)
    return lambda: future.result(PATIENCE)


def client_stream_out_of_credit(stage: Stage) -> Finish:
    requests = stage.requests(bytes(SMALL))
    future = stage.channel.stream_unary("/station/reads_nothing").future(requests)
    await_that(lambda: stage.sent == FULL + 1, "a full window")
    return lambda: future.result(PATIENCE)


def client_stream_in_large_messages(stage: Stage) -> Finish:
    requests = stage.requests(bytes(LARGE))
    future = stage.channel.stream_unary("/station/consume").future(requests)
    await_that(lambda: stage.sent > 1, "a large message")
    stage.freeze()
    return lambda: future.result(PATIENCE)


def both_streams_that_wait(stage: Stage) -> Finish:
    requests = stage.requests(b"x", count=1)
    call = stage.channel.stream_stream("/station/mirror")(requests)
    assert next(call) == b"x"
    return lambda: next(call)


def both_streams_out_of_credit(stage: Stage) -> Finish:
    requests = stage.requests(bytes(SMALL))
    call = stage.channel.stream_stream("/station/flood")(requests)
    await_that(lambda: stage.sent == FULL + 1, "a full window there")
    await_that(lambda: stage.produced(stage.channel) == FULL + 1, "a full window back")
    return lambda: list(call)


def both_streams_in_large_messages(stage: Stage) -> Finish:
    requests = stage.requests(bytes(LARGE))
    call = stage.channel.stream_stream("/station/mirror")(requests)
    for _ in range(2):
        assert len(next(call)) == LARGE
    stage.freeze()
    return lambda: list(call)


@dataclass(frozen=True)
class Scene:
    begin: Callable[[Stage], Finish]
    method: str
    frozen: bool = False
    """The server is stopped in it, and so its handler may never be entered."""
    reads: bool = False
    """Its handler is inside the request iterator."""


_ALL = (
    Scene(unary_in_its_handler, "hold"),
    Scene(unary_future_in_its_handler, "hold"),
    Scene(unary_large_request, "hold", frozen=True),
    Scene(unary_large_answer, "answer", frozen=True),
    Scene(server_stream_that_waits, "trickle"),
    Scene(server_stream_out_of_credit, "produce"),
    Scene(server_stream_in_a_large_message, "produce"),
    Scene(client_stream_that_waits, "consume", reads=True),
    Scene(client_stream_out_of_credit, "reads_nothing"),
    Scene(client_stream_in_large_messages, "consume", frozen=True, reads=True),
    Scene(both_streams_that_wait, "mirror", reads=True),
    Scene(both_streams_out_of_credit, "flood"),
    Scene(both_streams_in_large_messages, "mirror", frozen=True),
)
SCENES = {scene.begin.__name__: scene for scene in _ALL}


def perform(target: str, name: str, pen: Pen) -> None:
    """A process's whole life as a client."""
    with Stage(target) as stage:
        finish = SCENES[name].begin(stage)
        pen.say("begun")
        try:
            finish()
        except Exception as error:
            pen.say("failed", repr(error))


def linger(target: str, pen: Pen) -> None:
    """A client that is connected, has no call, and stays until it is killed."""
    with Stage(target) as stage:
        stage.channel.unary_unary("/station/echo")(b"")
        pen.say("begun")
        stage.over.wait()

"""Each rule of PROTOCOL.md, kept and broken, by clients and servers, on a ring and on a stream.

Invariant: what is forbidden ends that connection and no other; what is allowed ends nothing.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import grpc
import pytest
from grpc import aio

import localrpc.aio
from localrpc._core import lib
from localrpc.transports import Connection
from tests.concurrency.engines import live_calls, queued_bytes
from tests.conftest import fresh_target
from tests.endings import at_end
from tests.hostile import rules
from tests.hostile.raw import RawClient, raw_client
from tests.hostile.rules import ROWS, SLOT, Row
from tests.hostile.test_servers import server
from tests.peers.journal import PATIENCE
from tests.peers.scenes import Stage, await_that
from tests.peers.station import ANY_SIZE, Station
from tests.rpc.house import dial


@pytest.fixture(params=["shm-eventfd", "unix"])
def target(request: pytest.FixtureRequest, runtime_directory: str) -> str:
    return fresh_target(request.param, runtime_directory)


def of(role: str, *, broken: bool) -> pytest.MarkDecorator:
    rows = [row for row in ROWS[role] if row.broken is broken]
    assert len({str(row) for row in rows}) == len(rows)
    return pytest.mark.parametrize("row", rows, ids=str)


class ClientPeer:
    """A request stream is open."""

    call = SLOT

    def __init__(self, client: RawClient) -> None:
        self.client = client
        client.name("/station/reads_nothing")
        self.put(rules.OPEN, rules.opening())

    def put(self, kind: int, payload: bytes = b"", flags: int = 0, call: int | None = None) -> None:
        patience = 1000
        number = self.call if call is None else call
        while self.client.send(kind, payload, flags=flags, call=number) == 0 and patience:
            self.client.receive(0.01)
            patience -= 1


class ServerPeer:
    """The client waits for the answer to `call`."""

    def __init__(self, connection: Connection, call: int) -> None:
        self.connection = connection
        self.call = call

    def put(self, kind: int, payload: bytes = b"", flags: int = 0, call: int | None = None) -> None:
        number = self.call if call is None else call
        raw = self.connection.link.raw
        until = monotonic() + PATIENCE / 2
        while not lib.lr_link_send(raw, kind, flags, number, payload, len(payload)):
            if monotonic() > until:
                raise AssertionError("the client does not read")

    def flush(self) -> None:
        """A link may still have the end of what it has taken."""
        await_that(lambda: bool(lib.lr_link_flush(self.connection.link.raw)), "all of it to go")


@of("client", broken=True)
def test_a_client_that_breaks_a_rule_loses_its_connection(
    target: str,
    station: Station,
    bystander: Stage,
    row: Row,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = live_calls(station.server)
    with raw_client(target) as client:
        row.act(ClientPeer(client))
        client.expect_end()
        await_that(lambda: "broke the protocol" in caplog.text, "a word in the log")
    await_that(lambda: live_calls(station.server) == before, "its calls to end")
    await_that(lambda: queued_bytes(station.server) == 0, "what it left to go")


@of("client", broken=False)
def test_a_client_that_keeps_the_rules_is_served(
    target: str, station: Station, bystander: Stage, row: Row, caplog: pytest.LogCaptureFixture
) -> None:
    before = live_calls(station.server)
    with raw_client(target) as client:
        peer = ClientPeer(client)
        row.act(peer)
        peer.put(rules.METHOD, rules.method(99), call=0)
        call = SLOT * 9 + 99
        flags = rules.MESSAGE | rules.END
        peer.put(rules.OPEN, rules.opening(99, rest=b"well"), flags, call)
        while True:
            assert client.receive() == 1
            if client.io.raw.kind == rules.STATUS and client.io.raw.call == call:
                break
        assert client.io.buf[: client.io.raw.size] == bytes(4) + b"well"
    assert "broke the protocol" not in caplog.text
    await_that(lambda: live_calls(station.server) == before, "its calls to end")
    await_that(lambda: queued_bytes(station.server) == 0, "what it left to go")


READERS = [
    pytest.param(row, kind, id=f"{row}-{kind}")
    for row in ROWS["server"]
    for kind in ("unary", "stream", "unread", "aio-unary", "aio-stream")
    if row.broken and (kind == "unread" or not row.unread)
]


@pytest.mark.parametrize(("row", "kind"), READERS)
def test_a_server_that_breaks_a_rule_loses_its_connection(target: str, row: Row, kind: str) -> None:
    def act(connection: Connection, call: int) -> None:
        peer = ServerPeer(connection, call)
        row.act(peer)
        peer.flush()

    with server(target, act):
        if kind.startswith("aio-"):
            error = asyncio.run(aio_failure_of(target, kind))
        else:
            with dial(target) as channel:
                error = failure_of(channel, kind)
        assert error.code() is grpc.StatusCode.UNAVAILABLE, error.details()
        assert "broke the protocol" in error.details()


def failure_of(channel: Any, kind: str) -> Any:
    """Of a call whose owner reads on; "unread": only once the connection is known to be dead."""
    call: Any
    if kind == "unary":
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/a/b")(b"", timeout=PATIENCE)
        return caught.value
    call = channel.unary_stream("/a/b")(b"", timeout=PATIENCE)
    if kind == "unread":
        engine = channel._connector.peek().engine
        states: list[grpc.ChannelConnectivity] = []
        channel.subscribe(states.append)
        await_that(lambda: lib.lr_engine_alive(engine) < 0, "the connection to end")
    try:
        for _ in call:
            pass
    except grpc.RpcError:
        pass
    return call


async def result_of(channel: Any, kind: str) -> None:
    if kind == "aio-unary":
        await channel.unary_unary("/a/b")(b"", timeout=PATIENCE)
    else:
        async for _ in channel.unary_stream("/a/b")(b"", timeout=PATIENCE):
            pass


async def aio_failure_of(target: str, kind: str) -> Any:
    """As failure_of(), of a call of the asyncio API."""
    async with localrpc.aio.insecure_channel(target) as channel:
        with pytest.raises(aio.AioRpcError) as caught:
            await result_of(channel, kind)
        return caught.value


@of("server", broken=False)
@pytest.mark.parametrize("kind", ["stream", "unread", "aio-stream"])
def test_a_server_that_keeps_the_rules_is_understood(target: str, row: Row, kind: str) -> None:
    def act(connection: Connection, call: int) -> None:
        peer = ServerPeer(connection, call)
        row.act(peer)
        peer.put(rules.STATUS, rules.status(rest=b"well"), rules.MESSAGE)
        peer.flush()

    if kind == "aio-stream":
        with server(target, act):
            assert asyncio.run(aio_answers(target))[-1] == b"well"
        return
    with server(target, act), dial(target, ANY_SIZE) as channel:
        call: Any = channel.unary_stream("/a/b")(b"", timeout=PATIENCE)
        if kind == "unread":
            at_end(call, lambda: None)
        assert list(call)[-1] == b"well"
        assert call.code() is grpc.StatusCode.OK


async def aio_answers(target: str) -> list[Any]:
    async with localrpc.aio.insecure_channel(target, ANY_SIZE) as channel:
        call = channel.unary_stream("/a/b")(b"", timeout=PATIENCE)
        answers = [answer async for answer in call]
        assert await call.code() is grpc.StatusCode.OK
        return answers

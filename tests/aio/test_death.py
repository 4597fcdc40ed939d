"""kill -9 and SIGSTOP of either side, where one side or both are asyncio's."""

from __future__ import annotations

import asyncio
from concurrent import futures
from time import monotonic
from typing import Any

import grpc
import pytest
from grpc import aio

import localrpc.aio
from tests.conftest import distinct_two_process_target as target
from tests.peers import aio_scenes, aio_station, processes, scenes
from tests.peers.aio_scenes import SCENES
from tests.peers.aio_station import AioStation
from tests.peers.journal import PATIENCE, Journal
from tests.peers.processes import Peer
from tests.peers.station import ANY_SIZE

__all__ = ["target"]
BOUND = 5.0
"""Seconds that "at once" may take on a machine under load."""
TIMEOUT = 0.2


def aio_server(target: str) -> Peer:
    peer = Peer(aio_station.serve, target)
    peer.hear("serving")
    return peer


@pytest.mark.parametrize("name", SCENES)
def test_a_killed_server_makes_its_clients_calls_unavailable(target: str, name: str) -> None:
    scene = SCENES[name]
    with processes.server(target) as server, futures.ThreadPoolExecutor(1) as pool:
        played = Journal()
        waiting = pool.submit(
            lambda: asyncio.run(aio_scenes.play(target, name, lambda: played.say("begun")))
        )
        played.hear("begun")
        if scene.entered:
            server.hear("entered", scene.method)
        server.kill()
        begin = monotonic()
        error = waiting.result(PATIENCE)
        assert monotonic() - begin < BOUND
        assert error is not None
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert error.details()


@pytest.mark.parametrize("name", SCENES)
def test_a_killed_client_ends_its_calls_at_the_server(target: str, name: str) -> None:
    scene = SCENES[name]
    journal = Journal()
    station = AioStation(target, journal)
    try:
        with Peer(aio_scenes.perform, target, name) as client:
            client.hear("begun")
            if scene.entered:
                journal.hear("entered", scene.method)
            client.kill()
            client.join()
            if scene.entered:
                assert journal.hear("over", scene.method) == ("over", scene.method, False)
                journal.hear("left", scene.method)
                if scene.reads:
                    journal.hear("broken", scene.method)
        with scenes.Stage(target) as stage:
            assert stage.channel.unary_unary("/station/echo")(b"x", timeout=PATIENCE) == b"x"
    finally:
        station.stop()


def test_an_idle_client_does_not_notice_a_killed_and_restarted_server(target: str) -> None:
    """A synchronous client's calls do not fail either, and its server is asyncio's."""

    async def call(channel: Any) -> None:
        with aio_server(target):
            assert await channel.unary_unary("/station/echo")(b"x") == b"x"
        with aio_server(target):
            assert await channel.unary_stream("/station/trickle")(b"").read() == b"first"

    async def run() -> None:
        async with localrpc.aio.insecure_channel(target) as channel:
            for _ in range(2):
                await call(channel)

    asyncio.run(run())
    with localrpc.insecure_channel(target) as channel:
        echo: Any = channel.unary_unary("/station/echo")
        for _ in range(2):
            with aio_server(target):
                assert echo(b"x") == b"x"


async def unary(channel: Any) -> None:
    await channel.unary_unary("/station/echo")(b"late", timeout=TIMEOUT)


async def large_unary(channel: Any) -> None:
    await channel.unary_unary("/station/echo")(bytes(scenes.LARGE), timeout=TIMEOUT)


async def server_stream(channel: Any) -> None:
    async for _ in channel.unary_stream("/station/trickle")(b"", timeout=TIMEOUT):
        pass


async def client_stream(channel: Any) -> None:
    requests = iter([bytes(scenes.LARGE)] * 2)
    await channel.stream_unary("/station/consume")(requests, timeout=TIMEOUT)


async def both_streams(channel: Any) -> None:
    call = channel.stream_stream("/station/mirror")(timeout=TIMEOUT)
    await call.write(b"late")
    await call.read()


@pytest.mark.parametrize("work", [unary, large_unary, server_stream, client_stream, both_streams])
def test_a_stopped_server_does_not_hold_up_a_deadline(target: str, work: Any) -> None:
    async def run(server: Peer) -> None:
        async with localrpc.aio.insecure_channel(target, ANY_SIZE) as channel:
            echo = channel.unary_unary("/station/echo")
            assert await echo(b"before") == b"before"
            server.stop()
            begin = monotonic()
            with pytest.raises(aio.AioRpcError) as caught:
                await work(channel)
            assert TIMEOUT * 0.9 < monotonic() - begin < BOUND
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            server.go_on()
            # The server's result of the late call is not an answer to these.
            for number in range(20):
                assert await echo(b"%d" % number, timeout=PATIENCE) == b"%d" % number

    with aio_server(target) as server:
        asyncio.run(run(server))


def test_a_call_that_waits_for_room_ends_by_its_deadline(target: str) -> None:
    async def run(server: Peer) -> None:
        async with localrpc.aio.insecure_channel(target, ANY_SIZE) as channel:
            echo = channel.unary_unary("/station/echo")
            assert await echo(b"before") == b"before"
            server.stop()
            # These fill the link, and the last of them wait for room.
            others = [echo(bytes([number]) * 30_000) for number in range(250)]
            with pytest.raises(aio.AioRpcError) as caught:
                await echo(bytes(10_000), timeout=TIMEOUT)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            server.go_on()
            for number, other in enumerate(others):
                assert await other == bytes([number]) * 30_000
            assert await echo(b"after", timeout=PATIENCE) == b"after"

    with aio_server(target) as server:
        asyncio.run(run(server))


def test_a_stopped_reader_holds_up_no_other_client(target: str) -> None:
    journal = Journal()
    station = AioStation(target, journal)
    try:
        with Peer(aio_scenes.perform, target, "server_stream_out_of_credit") as client:
            client.hear("begun")
            client.stop()
            with scenes.Stage(target) as stage:
                echo = stage.channel.unary_unary("/station/echo")
                assert [echo(b"%d" % n, timeout=PATIENCE) for n in range(50)] == [
                    b"%d" % n for n in range(50)
                ]
            client.kill()
            journal.hear("over", "produce")
            journal.hear("left", "produce")
    finally:
        station.stop()


@pytest.mark.parametrize("target", ["shm-eventfd", "pipe"], indirect=True)
def test_a_large_request_that_no_server_has_seen_is_sent_again(target: str) -> None:
    """The first server stops before it reads, with part of the message on its way to it."""
    message = bytes(scenes.LARGE)

    async def run(server: Peer) -> None:
        async with localrpc.aio.insecure_channel(target, ANY_SIZE) as channel:
            echo = channel.unary_unary("/station/echo")
            assert await echo(b"before") == b"before"
            server.stop()
            call = echo(message, wait_for_ready=True, timeout=PATIENCE)
            while not call._call._partial:
                await asyncio.sleep(0)
            server.kill()
            server.join()
            with aio_server(target):
                assert await call == message

    with aio_server(target) as server:
        asyncio.run(run(server))

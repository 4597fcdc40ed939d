"""Each row of the guide's tables is brought about, and ends as it says."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

import localrpc
from tests.conftest import fresh_target
from tests.forks.children import Child
from tests.guides.page import text_of
from tests.peers import processes
from tests.peers.journal import PATIENCE
from tests.rpc.house import House, await_that, dial

PAGE = ".docs/guides/what-happens-when.md"
Outcome = tuple[str, str]
"""The name of a status code, and the details."""


def rows() -> dict[str, str]:
    """What happens, and how the call ends."""
    found = re.findall(r"^\| (.+?) \| (.+) \|$", text_of(PAGE), re.M)
    return {what: how for what, how in found if what != "what happens"}


def outcome(call: Any) -> Outcome:
    error = call.exception(PATIENCE)
    return ("OK", "") if error is None else (error.code().name, error.details())


def cancelled(call: Any, act: Callable[[], object]) -> Outcome:
    """`act` ends the call here: its future raises, and tells the status itself."""
    act()
    return call.code().name, call.details()


def held(house: House) -> Any:
    """A call that is in its handler until `house.gate` is set."""
    call = house.channel.unary_unary("/house/wait").future(b"")
    assert house.entered.acquire(timeout=PATIENCE)
    return call


def unary(house: House, method: str, request: bytes = b"") -> Outcome:
    return outcome(house.channel.unary_unary(f"/house/{method}").future(request, timeout=PATIENCE))


SCENES: dict[str, Callable[[str], Outcome]] = {}


def scene(what: str) -> Callable[[Callable[[str], Outcome]], None]:
    def add(play: Callable[[str], Outcome]) -> None:
        SCENES[what] = play

    return add


@scene("the deadline passes")
def _(target: str) -> Outcome:
    with House(target) as house:
        return outcome(house.channel.unary_unary("/house/wait").future(b"", timeout=0.1))


@scene("the caller cancels")
def _(target: str) -> Outcome:
    with House(target) as house:
        call = held(house)
        return cancelled(call, call.cancel)


@scene("the channel is closed")
def _(target: str) -> Outcome:
    with House(target) as house:
        return cancelled(held(house), house.channel.close)


@scene("the handler raises an exception")
def _(target: str) -> Outcome:
    with House(target) as house:
        return unary(house, "fail", b"why")


@scene("the handler calls `context.abort`")
def _(target: str) -> Outcome:
    with House(target) as house:
        assert unary(house, "abort", b"where") == ("NOT_FOUND", "where")
        return "the", ""


@scene("the server has no such method")
def _(target: str) -> Outcome:
    with House(target) as house:
        return unary(house, "nothing")


@scene("no server listens")
def _(target: str) -> Outcome:
    with dial(target) as channel:
        return outcome(channel.unary_unary("/house/echo").future(b"", timeout=PATIENCE))


@scene("no server listens, and the call has `wait_for_ready=True`")
def _(target: str) -> Outcome:
    with dial(target) as channel:
        echo = channel.unary_unary("/house/echo")
        call = echo.future(b"", timeout=PATIENCE, wait_for_ready=True)
        with House(target):
            return outcome(call)


@scene("the server dies during the call")
def _(target: str) -> Outcome:
    with processes.server(target) as server, dial(target) as channel:
        call = channel.unary_unary("/station/hold").future(b"", timeout=PATIENCE)
        server.hear("entered", "hold")
        server.kill()
        return outcome(call)


@scene("the server is a child of the caller, and dies during the call")
def _(target: str) -> Outcome:
    def die(request: bytes, context: Any) -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""

    def setup(server: grpc.Server) -> None:
        method: Any = grpc.unary_unary_rpc_method_handler(die)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("s", {"die": method}),)
        )

    channel: Any
    with localrpc.fork_channel(setup, target="shm:") as channel:
        code, details = outcome(channel.unary_unary("/s/die").future(b"", timeout=PATIENCE))
        return code, details.replace(str(channel.pid), "4711")


@scene("the server stops, and the call takes longer than the grace")
def _(target: str) -> Outcome:
    with House(target) as house:
        call = held(house)
        house.server.stop(0.01)
        return outcome(call)


@scene("the server stops, and the call ends within the grace")
def _(target: str) -> Outcome:
    with House(target) as house:
        call = held(house)
        house.server.stop(PATIENCE)
        house.gate.set()
        return outcome(call)


@scene("the server's process is stopped, as by a debugger")
def _(target: str) -> Outcome:
    with processes.server(target) as server, dial(target) as channel:
        echo = channel.unary_unary("/station/echo")
        echo(b"", timeout=PATIENCE)
        server.stop()
        late = outcome(echo.future(b"", timeout=0.5))
        call = echo.future(b"", timeout=PATIENCE)
        server.go_on()
        assert outcome(call) == ("OK", "")
        return late


@scene("the server has been started again")
def _(target: str) -> Outcome:
    with dial(target) as channel:
        for _ in range(2):
            with House(target):
                echo = channel.unary_unary("/house/echo")
                last = outcome(echo.future(b"", timeout=PATIENCE))
        return last


@scene("a forked child makes a call on its parent's channel")
def _(target: str) -> Outcome:
    with processes.server(target), dial(target) as channel:
        echo = channel.unary_unary("/station/echo")
        echo(b"", timeout=PATIENCE)
        Child(lambda: echo(b"", timeout=PATIENCE)).join()
        return "OK", ""


@scene("the process forks during a call, in the parent")
def _(target: str) -> Outcome:
    with House(target) as house:
        call = held(house)
        Child(lambda: None).join()
        house.gate.set()
        return outcome(call)


@scene("the process forks during a call, in the child")
def _(target: str) -> Outcome:
    expected = "CANCELLED", "Call cancelled in fork child"
    with processes.server(target) as server, dial(target) as channel:
        call = channel.unary_unary("/station/hold").future(b"", timeout=PATIENCE)
        server.hear("entered", "hold")

        def work() -> None:
            assert (call.code().name, call.details()) == expected

        Child(work).join()
        call.cancel()
        return expected


@scene("all threads of the pool are busy")
def _(target: str) -> Outcome:
    with House(target, workers=1) as house:
        first = held(house)
        second = house.channel.unary_unary("/house/echo").future(b"", timeout=PATIENCE)
        assert not second.done()
        house.gate.set()
        assert outcome(first) == ("OK", "")
        return outcome(second)


@scene("there are more calls than `maximum_concurrent_rpcs`")
def _(target: str) -> Outcome:
    with House(target, maximum_concurrent_rpcs=1) as house:
        held(house)
        return unary(house, "echo")


@scene("a user has more calls in progress than `localrpc.max_calls_per_user`")
def _(target: str) -> Outcome:
    limit = "localrpc.max_calls_per_user"
    with House(target, options=[(limit, 1)]) as house:
        held(house)
        code, details = unary(house, "echo")
        assert limit in details
        return code, details


@scene("a user has more connections than `localrpc.max_connections_per_user`")
def _(target: str) -> Outcome:
    limit = "localrpc.max_connections_per_user"
    with House(target, options=[(limit, 1)]) as house, dial(target) as second:
        assert unary(house, "echo") == ("OK", "")
        code, details = outcome(second.unary_unary("/house/echo").future(b"", timeout=PATIENCE))
        assert limit in details
        return code, details


@scene("a message is larger than the other side accepts")
def _(target: str) -> Outcome:
    with House(target) as house:
        return unary(house, "echo", bytes(5 << 20))


@scene("a stream has a reader that is slower than its writer")
def _(target: str) -> Outcome:
    sent = 0

    def requests() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield bytes(1 << 16)

    window = [("localrpc.window", 1 << 20)]
    with House(target, options=window, channel_options=window) as house:
        call = house.channel.stream_stream("/house/mirror")(requests(), timeout=PATIENCE)
        next(call)
        with futures.ThreadPoolExecutor(1) as pool:
            # It is not read: two windows are full, the way there and the way back.
            await_that(lambda: sent >= 16, "the writer to be ahead")
            assert sent < 100
            assert pool.submit(lambda: sum(1 for _ in call)).result(PATIENCE) == 99
        return call.code().name, call.details()


def test_the_guide_has_a_row_for_each_scene() -> None:
    assert list(rows()) == list(SCENES)


@pytest.mark.parametrize("what", SCENES)
def test_a_call_ends_as_the_guide_says(what: str, runtime_directory: str) -> None:
    code, details = SCENES[what](fresh_target("shm-eventfd", runtime_directory))
    told = rows()[what]
    assert re.match(rf"`?{code}\b", told), (code, details)
    for text in re.findall(r", `([^`]+)`", told):
        assert text in details


def test_a_handler_learns_of_the_end_of_its_call(runtime_directory: str) -> None:
    with House(fresh_target("shm-eventfd", runtime_directory)) as house:
        call = house.channel.unary_unary("/house/watch").future(b"", timeout=PATIENCE)
        assert house.entered.acquire(timeout=PATIENCE)
        call.cancel()
        assert house.ended.wait(PATIENCE)
        assert not house.contexts[0].is_active()

        def silent() -> Iterator[bytes]:
            yield b""
            house.gate.wait(PATIENCE)

        listening = house.channel.stream_unary("/house/listen").future(silent(), timeout=PATIENCE)
        assert house.entered.acquire(timeout=PATIENCE)
        listening.cancel()
        await_that(lambda: bool(house.broken), "the iterator of requests to raise")
        house.gate.set()


def test_codes_of_the_guide_are_codes() -> None:
    named = {how.partition("`,")[0].strip("`") for how in rows().values() if how[0] == "`"}
    assert named <= {code.name for code in grpc.StatusCode}

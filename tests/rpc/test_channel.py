"""Connecting, losing, finding again."""

from __future__ import annotations

import threading
from typing import Any

import grpc

from .house import PATIENCE, House, await_that, dial

State = grpc.ChannelConnectivity


def test_a_restarted_server_is_reached_again(any_target: str) -> None:
    with dial(any_target) as channel:
        echo = channel.unary_unary("/house/echo")
        for _ in range(3):
            with House(any_target):
                assert echo(b"x", timeout=PATIENCE, wait_for_ready=True) == b"x"
                assert echo(b"y", timeout=PATIENCE) == b"y"


def test_wait_for_ready_outlasts_the_servers_absence(any_target: str) -> None:
    with dial(any_target) as channel:
        call = channel.unary_unary("/house/echo").future(b"x", wait_for_ready=True)
        assert not call.done()
        with House(any_target):
            assert call.result(PATIENCE) == b"x"


def test_subscribers_are_notified_of_connection_and_loss(target: str) -> None:
    states: list[grpc.ChannelConnectivity] = []
    with dial(target) as channel:
        with House(target):
            channel.subscribe(states.append, try_to_connect=True)
            grpc.channel_ready_future(channel).result(PATIENCE)
            await_that(lambda: State.READY in states, "READY")
        await_that(lambda: states[-1] is State.IDLE, "IDLE after the loss")
        channel.unsubscribe(states.append)
    assert states[0] is State.IDLE
    assert states.index(State.CONNECTING) < states.index(State.READY)


def test_channel_ready_future_waits_for_a_server(any_target: str) -> None:
    with dial(any_target) as channel:
        future = grpc.channel_ready_future(channel)
        assert not future.done()
        with House(any_target):
            future.result(PATIENCE)


def test_interceptors_of_grpc_wrap_the_channel(one_house: House) -> None:
    seen = []

    class Interceptor(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation, details, request):  # type: ignore[no-untyped-def]
            seen.append(details.method)
            return continuation(details, request)

    channel: Any = grpc.intercept_channel(one_house.channel, Interceptor())
    assert channel.unary_unary("/house/echo")(b"x") == b"x"
    assert seen == ["/house/echo"]


def test_a_callback_may_call(one_house: House) -> None:
    echo = one_house.unary("echo")
    answers: list[bytes] = []
    done = threading.Event()

    def again(future: Any) -> None:
        answers.append(echo.future(future.result()).result(PATIENCE))
        done.set()

    echo.future(b"x").add_done_callback(again)
    assert done.wait(PATIENCE)
    assert answers == [b"x"]


def test_no_thread_is_left_by_calls(one_house: House) -> None:
    before = set(threading.enumerate())
    one_house.unary("echo")(b"x")
    one_house.unary("echo").future(b"x").result(PATIENCE)
    list(one_house.stream("count")(b"10"))
    new = [thread.name for thread in set(threading.enumerate()) - before]
    assert not [name for name in new if "ThreadPoolExecutor" not in name]


def test_a_method_is_made_anew_only_for_other_functions(one_house: House) -> None:
    """grpc.intercept_channel asks for the method with each call."""
    channel = one_house.channel
    echo = channel.unary_unary("/house/echo", bytes, bytes)
    assert channel.unary_unary("/house/echo", bytes, bytes) is echo
    reverse = channel.unary_unary("/house/echo", bytes, lambda data: data[::-1])
    assert reverse(b"ab") == b"ba"
    assert echo(b"ab") == b"ab"
    assert channel.unary_unary("/house/echo", None, None)(b"ab") == b"ab"

"""The four kinds of call, their messages and their metadata."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from .house import PATIENCE, House

SIZES = (0, 1, 64, 32 * 1024, 32 * 1024 + 1, 100_000, 1 << 20, (4 << 20) - 5)


@pytest.mark.parametrize("size", SIZES)
def test_a_unary_answer_is_what_was_asked(house: House, size: int) -> None:
    message = bytes(range(256)) * (size // 256 + 1)
    assert house.unary("echo")(message[:size]) == message[:size]


def test_many_calls_follow_each_other(house: House) -> None:
    echo = house.unary("echo")
    assert [echo(b"%d" % n) for n in range(500)] == [b"%d" % n for n in range(500)]


def test_with_call_gives_a_call_that_is_over(house: House) -> None:
    answer, call = house.unary("echo").with_call(b"x")
    assert answer == b"x"
    assert call.code() is grpc.StatusCode.OK
    assert call.details() == ""
    assert call.done()
    assert tuple(call.initial_metadata()) == tuple(call.trailing_metadata()) == ()


def test_metadata_travels_both_ways(house: House) -> None:
    pairs = (("text", "value"), ("blob-bin", b"\x00\xff"), ("text", "again"))
    _, call = house.unary("headers").with_call(b"x", metadata=pairs)
    assert call.initial_metadata() == pairs
    assert call.trailing_metadata()[:3] == pairs
    assert call.trailing_metadata()[3].value.startswith(("unix:", "ipv4:"))


def test_a_server_stream_comes_in_order(house: House) -> None:
    assert list(house.stream("count")(b"1000")) == [b"%d" % n for n in range(1000)]


def test_an_empty_server_stream_ends_well(house: House) -> None:
    call = house.stream("count")(b"0")
    assert list(call) == []
    assert call.code() is grpc.StatusCode.OK


def test_a_client_stream_arrives_whole(house: House) -> None:
    length = house.channel.stream_unary("/house/length")
    assert length(iter([b"x" * 100] * 1000)) == b"100000"
    assert length(b"y" * size for size in range(100)) == b"4950"
    assert length(iter(())) == b"0"


def test_large_messages_stream_both_ways(house: House) -> None:
    messages = [bytes([n]) * 300_000 for n in range(20)]
    mirror = house.channel.stream_stream("/house/mirror")
    assert list(mirror(iter(messages))) == messages


def test_a_dialogue_alternates(house: House) -> None:
    answered = threading.Semaphore(1)

    def requests() -> Iterator[bytes]:
        for number in range(100):
            assert answered.acquire(timeout=PATIENCE)
            yield b"%d" % number

    got = []
    for answer in house.channel.stream_stream("/house/mirror")(requests()):
        got.append(answer)
        answered.release()
    assert got == [b"%d" % n for n in range(100)]


def test_more_requests_than_the_windows_hold_do_not_lock_up(house: House) -> None:
    message = b"x" * 30_000
    mirror = house.channel.stream_stream("/house/mirror")
    assert sum(1 for _ in mirror(iter([message] * 500))) == 500


class Hearing(House):
    """`heard` has one for each message that has come to its handler."""

    def handlers(self) -> Any:
        self.heard = threading.Semaphore(0)
        handler: Any = grpc.stream_unary_rpc_method_handler(self.hear)
        return grpc.method_handlers_generic_handler("house", {"hear": handler})

    def hear(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        for _ in requests:
            self.heard.release()
        return b"all"


def test_a_request_iterator_may_wait_for_the_previous_answer(any_target: str) -> None:
    """No other thread is there to send its rest."""
    house = Hearing(any_target)
    with house:
        made = threading.Event()

        def requests() -> Iterator[bytes]:
            for _ in range(3):
                yield bytes(1_500_000)
                assert house.heard.acquire(timeout=PATIENCE)
            made.set()

        call = house.channel.stream_unary("/house/hear").future(requests())
        assert made.wait(4 * PATIENCE)
        assert call.result(PATIENCE) == b"all"


def test_eight_threads_share_a_channel(house: House) -> None:
    echo = house.unary("echo")
    wrong = []

    def run(thread: int) -> None:
        for number in range(200):
            message = b"%d-%d" % (thread, number)
            if echo(message) != message:
                wrong.append(message)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert not wrong


def test_sixteen_handlers_that_meet_all_finish(any_target: str) -> None:
    barrier = threading.Barrier(16)

    def meet(request: bytes, context: grpc.ServicerContext) -> bytes:
        barrier.wait(PATIENCE)
        return request

    with House(any_target, workers=16) as house:
        handler: Any = grpc.unary_unary_rpc_method_handler(meet)
        house.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("more", {"meet": handler}),)
        )
        calls = [house.channel.unary_unary("/more/meet").future(b"%d" % n) for n in range(16)]
        assert [call.result(PATIENCE) for call in calls] == [b"%d" % n for n in range(16)]


def test_a_sleeping_handler_delays_no_other_call(house: House) -> None:
    slow = house.unary("wait").future(b"slow")
    house.enter()
    assert house.unary("echo")(b"quick", timeout=PATIENCE) == b"quick"
    house.gate.set()
    assert slow.result(PATIENCE) == b"slow"

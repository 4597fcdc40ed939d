"""After its deadline a call has ended with that, whatever its handler does.

Invariant: a client never sees how a handler reacts to the deadline. An answer that has
arrived before is kept, however late it is read.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any

import grpc
import pytest

from .house import PATIENCE, House, await_that, dial

Code = grpc.StatusCode

CALLS = 200
CALLERS = 8
TIMEOUT = 0.02


def poll(context: grpc.ServicerContext, requests: Iterator[bytes]) -> None:
    while context.is_active():
        time.sleep(0.001)


def count_down(context: grpc.ServicerContext, requests: Iterator[bytes]) -> None:
    while context.time_remaining() > 0:
        time.sleep(0.001)


def be_called(context: grpc.ServicerContext, requests: Iterator[bytes]) -> None:
    ended = threading.Event()
    if context.add_callback(ended.set):
        ended.wait(PATIENCE)


def read_on(context: grpc.ServicerContext, requests: Iterator[bytes]) -> None:
    try:
        for _ in requests:
            pass
    except grpc.RpcError as error:
        raise RuntimeError("wrapped") from error


def read_to_the_end(context: grpc.ServicerContext, requests: Iterator[bytes]) -> None:
    try:
        list(requests)
    except grpc.RpcError:
        poll(context, requests)  # grpcio's handler would know before its deadline


def answer(context: grpc.ServicerContext) -> bytes:
    return b"late"


def abort(context: grpc.ServicerContext) -> bytes:
    context.abort(Code.ABORTED, "too late")
    raise AssertionError("abort() returned")


def fail(context: grpc.ServicerContext) -> bytes:
    raise ValueError("too late")


def set_code(context: grpc.ServicerContext) -> bytes:
    context.set_code(Code.DATA_LOSS)
    return b""


def cancel(context: grpc.ServicerContext) -> bytes:
    context.cancel()
    return b""


NOTICE = {one.__name__: one for one in (poll, count_down, be_called)}
NOTICE_REQUESTS = {one.__name__: one for one in (read_on, read_to_the_end)}
REACT = {one.__name__: one for one in (answer, abort, fail, set_code, cancel)}


class LateHouse(House):
    """Handlers that do what their request says: how they notice the deadline, and what then."""

    def handlers(self) -> Any:
        return grpc.method_handlers_generic_handler(
            "late",
            {
                "uu": grpc.unary_unary_rpc_method_handler(self.unary_unary),
                "us": grpc.unary_stream_rpc_method_handler(self.unary_stream),
                "su": grpc.stream_unary_rpc_method_handler(self.stream_unary),
                "ss": grpc.stream_stream_rpc_method_handler(self.stream_stream),
                "now": grpc.unary_unary_rpc_method_handler(self.echo),
                "nope": grpc.unary_unary_rpc_method_handler(self.abort),
                "count": grpc.unary_stream_rpc_method_handler(self.count),
                "last": grpc.unary_stream_rpc_method_handler(self.last),
                "length": grpc.stream_unary_rpc_method_handler(self.length),
                "wait": grpc.unary_unary_rpc_method_handler(self.wait),
            },
        )

    def last(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"0"
        context.abort(Code.NOT_FOUND, "no more")

    def unary_unary(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        return self.stream_unary(iter([request]), context)

    def stream_unary(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        notice, react = next(requests).decode().split()
        (NOTICE | NOTICE_REQUESTS)[notice](context, requests)
        return REACT[react](context)

    def unary_stream(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        return self.stream_stream(iter([request]), context)

    def stream_stream(
        self, requests: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        yield b"in time"
        yield self.stream_unary(requests, context)
        yield b"and more"


@pytest.fixture
def late_house(distinct_or_foreign_target: str) -> Iterator[LateHouse]:
    house = LateHouse(distinct_or_foreign_target, workers=CALLERS)
    with house:
        yield house


def requests_of(first: bytes, over: threading.Event) -> Iterator[bytes]:
    yield first
    over.wait(PATIENCE)


def code_of(call: Callable[[], object]) -> Any:
    try:
        call()
    except grpc.RpcError as error:
        failed: Any = error
        return failed.code()
    return Code.OK


def call_once(channel: Any, kind: str, request: bytes) -> grpc.StatusCode:
    """The status of one call with TIMEOUT, made in the plain way of its kind."""
    over = threading.Event()
    sent: Any = requests_of(request, over) if kind in ("su", "ss") else request
    try:
        return code_of(lambda: drive(channel, kind, sent, timeout=TIMEOUT))  # type: ignore[no-any-return]
    finally:
        over.set()


def drive(channel: Any, kind: str, sent: Any, **how: Any) -> None:
    """One call of that kind, to its end."""
    if kind == "uu":
        channel.unary_unary("/late/uu")(sent, **how)
    elif kind == "us":
        list(channel.unary_stream("/late/us")(sent, **how))
    elif kind == "su":
        channel.stream_unary("/late/su")(sent, **how)
    else:
        list(channel.stream_stream("/late/ss")(sent, **how))


def codes_of(
    call: Callable[[bytes], grpc.StatusCode], kind: str, *, foreign: bool = False
) -> Counter[tuple[str, str]]:
    """How CALLS calls have ended, by what their handlers did."""
    notice = [*NOTICE, *(NOTICE_REQUESTS if kind in ("su", "ss") else ())]
    if foreign:
        # Its handlers' clock runs ahead of its core's: half of these are seen in time.
        notice.remove("count_down")
    each = islice(cycle(f"{one} {two}" for one, two in product(notice, REACT)), CALLS)
    with futures.ThreadPoolExecutor(CALLERS) as callers:
        requests = list(each)
        codes = callers.map(lambda request: call(request.encode()), requests)
        return Counter((request, code.name) for request, code in zip(requests, codes, strict=True))


def others(codes: Counter[tuple[str, str]]) -> dict[tuple[str, str], int]:
    return {seen: count for seen, count in codes.items() if seen[1] != "DEADLINE_EXCEEDED"}


@pytest.mark.parametrize("kind", ["uu", "us", "su", "ss"])
def test_a_handlers_reaction_to_the_deadline_is_not_visible(
    late_house: LateHouse, kind: str
) -> None:
    foreign = late_house.target.startswith("grpc:")
    codes = codes_of(
        lambda request: call_once(late_house.channel, kind, request), kind, foreign=foreign
    )
    assert codes.total() == CALLS
    assert not others(codes)


class Passing(grpc.UnaryUnaryClientInterceptor):
    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(details, request)


def by_result(channel: Any, request: bytes) -> grpc.StatusCode:
    call = channel.unary_unary("/late/uu").future(request, timeout=TIMEOUT)
    error = call.exception(timeout=PATIENCE)
    return Code.OK if error is None else error.code()


def by_with_call(channel: Any, request: bytes) -> grpc.StatusCode:
    method = channel.unary_unary("/late/uu")
    return code_of(lambda: method.with_call(request, timeout=TIMEOUT, wait_for_ready=True))  # type: ignore[no-any-return]


def by_callback(channel: Any, request: bytes) -> grpc.StatusCode:
    done = threading.Event()
    call = channel.unary_unary("/late/uu").future(request, timeout=TIMEOUT)
    call.add_done_callback(lambda _: done.set())
    assert done.wait(PATIENCE)
    return call.code()  # type: ignore[no-any-return]


def by_polling(channel: Any, request: bytes) -> grpc.StatusCode:
    call = channel.unary_unary("/late/uu").future(request, timeout=TIMEOUT)
    await_that(call.done, "the end of the call")
    return call.code()  # type: ignore[no-any-return]


def by_interceptor(channel: Any, request: bytes) -> grpc.StatusCode:
    return call_once(grpc.intercept_channel(channel, Passing()), "uu", request)


def after(call: Any) -> Any:
    """`call`, once its deadline has passed: no thread has read anything meanwhile."""
    await_that(lambda: call.time_remaining() == 0, "its deadline")
    if type(call).__module__ == "grpc._channel":  # its core's clock is another one
        await_that(lambda: not call.is_active(), "its end")
    return call


def by_cancelling_late(channel: Any, request: bytes) -> grpc.StatusCode:
    call = channel.unary_unary("/late/uu").future(request, timeout=TIMEOUT)
    assert not after(call).cancel()
    return call.code()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "way",
    [by_result, by_with_call, by_callback, by_polling, by_interceptor, by_cancelling_late],
)
def test_however_a_unary_call_is_awaited(one_target: str, way: Any) -> None:
    house = LateHouse(one_target, workers=CALLERS)
    with house:
        codes = codes_of(lambda request: way(house.channel, request), "uu")
    assert not others(codes)


@pytest.mark.parametrize("kind", ["uu", "us", "su", "ss"])
@pytest.mark.parametrize("timeout", [0.001, 1e-6, 0, -1])
def test_a_deadline_that_is_close_or_past(late_house: LateHouse, kind: str, timeout: float) -> None:
    for wait_for_ready, _ in product((False, True), range(20)):
        over = threading.Event()
        sent: Any = b"poll answer"
        if kind in ("su", "ss"):
            sent = requests_of(sent, over)
        how = {"timeout": timeout, "wait_for_ready": wait_for_ready}
        code = code_of(lambda: drive(late_house.channel, kind, sent, **how))  # noqa: B023
        over.set()
        assert code is Code.DEADLINE_EXCEEDED


def test_a_call_whose_deadline_passes_while_it_waits_for_a_thread(target: str) -> None:
    with LateHouse(target, workers=1) as house:
        wait = house.channel.unary_unary("/late/wait")
        busy = wait.future(b"")
        house.enter()
        for _ in range(20):
            assert code_of(lambda: wait(b"", timeout=0.005)) is Code.DEADLINE_EXCEEDED
        house.gate.set()
        assert busy.result(PATIENCE) == b""
        assert house.channel.unary_unary("/late/now")(b"x") == b"x"


def test_a_call_whose_deadline_passes_while_it_waits_for_a_connection(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "mute"))
        mute.listen()  # and never says a word
        with dial(f"unix:{tmp_path}/mute") as channel:

            def call(timeout: float) -> Any:
                return code_of(lambda: channel.unary_unary("/a/b")(b"", timeout=timeout))

            with futures.ThreadPoolExecutor(4) as callers:
                # One of them dials; that it gives up is not a failure of the others.
                codes = list(callers.map(call, (0.1, 0.2, 0.3, 0.4)))
            assert codes == [Code.DEADLINE_EXCEEDED] * 4
            begun = channel.unary_unary("/a/b").future(b"", timeout=0.1)
            assert begun.exception(PATIENCE).code() is Code.DEADLINE_EXCEEDED


# What has arrived before the deadline and is read after it.


def once(attempt: Callable[[float], bool]) -> bool:
    """Try longer timeouts until one succeeds: on a busy machine a short one may be too short."""
    return any(attempt(0.1 * 2**number) for number in range(6))


@pytest.mark.parametrize(
    ("kind", "method", "sent", "code"),
    [
        ("unary_unary", "now", b"x", Code.OK),
        ("unary_unary", "nope", b"nowhere", Code.NOT_FOUND),
        ("stream_unary", "length", [b"1", b"23"], Code.OK),
    ],
)
def test_an_answer_that_arrived_in_time_is_kept(
    late_house: LateHouse, kind: str, method: str, sent: Any, code: grpc.StatusCode
) -> None:
    begin = getattr(late_house.channel, kind)(f"/late/{method}").future

    def attempt(timeout: float) -> bool:
        call = begin(iter(sent) if kind == "stream_unary" else sent, timeout=timeout)
        return after(call).code() is code

    assert once(attempt)


def test_an_answer_that_arrived_in_time_cannot_be_cancelled(late_house: LateHouse) -> None:
    begin = late_house.channel.unary_unary("/late/now").future

    def attempt(timeout: float) -> bool:
        call = after(begin(b"x", timeout=timeout))
        assert not call.cancel()
        return call.code() is Code.OK

    assert once(attempt)


def test_unread_messages_are_lost_at_the_deadline(late_house: LateHouse) -> None:
    """As in grpcio: a stream's status counts only once its messages are read."""
    count = late_house.channel.unary_stream("/late/count")
    unread = after(count(b"3", timeout=0.2))
    assert code_of(lambda: next(unread)) is Code.DEADLINE_EXCEEDED
    assert unread.code() is Code.DEADLINE_EXCEEDED


def test_a_status_behind_messages_that_were_read_is_kept(late_house: LateHouse) -> None:
    last = late_house.channel.unary_stream("/late/last")

    def attempt(timeout: float) -> bool:
        call = last(b"", timeout=timeout)
        if code_of(lambda: next(call)) is not Code.OK:
            return False
        code = code_of(lambda: next(after(call)))
        return code is Code.NOT_FOUND

    assert once(attempt)

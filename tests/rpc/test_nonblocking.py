"""Handlers that answer later hold no thread; those with a pool of their own wait for no other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

import localrpc
from localrpc._core import lib
from localrpc.options import Options
from tests.concurrency.engines import figures
from tests.peers.station import ANY_SIZE

from .house import PATIENCE, await_that, dial

WATCHERS = 1000
LARGE = 5 << 20
"""Bytes: more than a call's window, and than any ring."""
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Clinic:
    """A server of health, and a channel to it."""

    def __init__(self, target: str, *, workers: int = 4, **named: Any) -> None:
        self.servicer = health.HealthServicer(experimental_thread_pool=named.pop("own_pool", None))
        self.pool = named.pop("pool", None) or futures.ThreadPoolExecutor(workers)
        self.server = localrpc.server(self.pool, **named)
        health_pb2_grpc.add_HealthServicer_to_server(self.servicer, self.server)
        self.server.add_insecure_port(target)
        self.channel = dial(target)
        self.stub = health_pb2_grpc.HealthStub(self.channel)

    def __enter__(self) -> Clinic:
        self.server.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.channel.close()
        self.server.stop(None)
        self.pool.shutdown(wait=True)

    def watch(self, count: int, **named: Any) -> list[Any]:
        request = health_pb2.HealthCheckRequest()
        calls = [self.stub.Watch(request, **named) for _ in range(count)]
        assert {next(call).status for call in calls} == {SERVING}
        # It adds its callback after the first response, too late if the call has ended.
        await_that(lambda: self.watchers() == count, "the servicer knows all watchers")
        return calls

    def watchers(self) -> int:
        """How many the servicer still holds: its callbacks remove them."""
        return len(self.servicer._send_response_callbacks.get("", ()))


@pytest.fixture
def clinic(distinct_target: str) -> Iterator[Clinic]:
    with Clinic(distinct_target) as one:
        yield one


def test_a_thousand_watchers_on_a_pool_of_four(clinic: Clinic) -> None:
    threads = threading.active_count()
    calls = clinic.watch(WATCHERS)
    assert threading.active_count() < threads + 20
    assert clinic.stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE).status == SERVING
    clinic.servicer.set("", NOT_SERVING)
    assert {next(call).status for call in calls} == {NOT_SERVING}
    for call in calls:
        call.cancel()
    await_that(lambda: clinic.watchers() == 0, "the servicer notices every cancellation")


def test_watchers_end_at_their_deadline(distinct_target: str) -> None:
    for timeout in (0.5, 2.0, 8.0, 32.0):
        with Clinic(distinct_target) as clinic:
            try:
                calls = clinic.watch(100, timeout=timeout)
            except (grpc.RpcError, AssertionError):
                continue  # on a busy machine a short time may be too short
            assert {call.code() for call in calls} == {grpc.StatusCode.DEADLINE_EXCEEDED}
            await_that(lambda: clinic.watchers() == 0, "the servicer notices every deadline")
            return
    raise AssertionError("they do not begin in time")


def test_watchers_end_with_their_channel(clinic: Clinic) -> None:
    calls = clinic.watch(100)
    clinic.channel.close()
    assert {call.code() for call in calls} == {grpc.StatusCode.CANCELLED}
    await_that(lambda: clinic.watchers() == 0, "the servicer notices the channel's end")


@pytest.mark.parametrize("grace", [None, 0.1])
def test_watchers_end_with_the_server(clinic: Clinic, grace: float | None) -> None:
    calls = clinic.watch(100)
    assert clinic.server.stop(grace).wait(PATIENCE)
    assert {call.code() for call in calls} == {grpc.StatusCode.UNAVAILABLE}
    await_that(lambda: clinic.watchers() == 0, "the servicer notices the server's end")


class _Plain(grpc.ServerInterceptor):
    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        return continuation(handler_call_details)


class _Pool(futures.ThreadPoolExecutor):
    """A subclass, so that every call is submitted to it."""


@pytest.mark.parametrize("interceptors", [(), (_Plain(),)], ids=["", "intercepted"])
@pytest.mark.parametrize("kind", ["loops", "submit", "limited"])
def test_health_with_a_pool_of_its_own_answers_while_the_server_is_busy(
    one_target: str, kind: str, interceptors: tuple[grpc.ServerInterceptor, ...]
) -> None:
    gate, entered = threading.Event(), threading.Semaphore(0)

    def hold(request: bytes, context: Any) -> bytes:
        entered.release()
        gate.wait(PATIENCE)
        return b"held"

    methods: dict[str, Any] = {"hold": grpc.unary_unary_rpc_method_handler(hold)}
    named: dict[str, Any] = {
        "pool": _Pool(2) if kind == "submit" else None,
        "maximum_concurrent_rpcs": 100 if kind == "limited" else None,
        "own_pool": futures.ThreadPoolExecutor(1),
        "handlers": [grpc.method_handlers_generic_handler("busy", methods)],
        "interceptors": interceptors,
    }
    with Clinic(one_target, workers=2, **named) as clinic:
        held = [clinic.channel.unary_unary("/busy/hold").future(b"") for _ in range(6)]
        try:
            for _ in range(2):
                assert entered.acquire(timeout=PATIENCE)
            for _ in range(2):
                calls = clinic.watch(20, timeout=PATIENCE)
                for call in calls:
                    call.cancel()
                await_that(lambda: clinic.watchers() == 0, "the servicer notices their end")
        finally:
            gate.set()
        assert [call.result(PATIENCE) for call in held] == [b"held"] * 6
        # And the pool's own threads take the calls again.
        echo = clinic.channel.unary_unary("/busy/hold")
        assert [echo(b"", timeout=PATIENCE) for _ in range(50)] == [b"held"] * 50


def _open_call(
    target: str, window: int = Options().window, **named: Any
) -> tuple[Any, Any, Any, Any]:
    """Server, channel, and both ends of a call that is open: on_next, and the client's."""
    came = threading.Event()
    opened: list[Any] = []

    def behave(request: bytes, context: Any, on_next: Any) -> None:
        opened.append(on_next)
        came.set()

    behave.experimental_non_blocking = True  # type: ignore[attr-defined]
    methods: dict[str, Any] = {"do": grpc.unary_stream_rpc_method_handler(behave)}
    server = localrpc.server(
        futures.ThreadPoolExecutor(1),
        handlers=[grpc.method_handlers_generic_handler("open", methods)],
    )
    server.add_insecure_port(target)
    server.start()
    channel = dial(target, [*ANY_SIZE, ("localrpc.window", window)])
    call = channel.unary_stream("/open/do")(b"", **named)
    assert came.wait(PATIENCE)
    return server, channel, opened[0], call


class _Sender(threading.Thread):
    """Sends more than there is room for, until its call is over."""

    def __init__(self, on_next: Any, size: int) -> None:
        super().__init__(daemon=True)
        self.on_next, self.message, self.sent = on_next, b"x" * size, 0
        self.start()

    def run(self) -> None:
        for _ in range(100_000):
            self.on_next(self.message)
            self.sent += 1

    def end_call(self, call: Any) -> None:
        """By another thread than this one, which is sending."""
        self.on_next(None)
        assert {len(message) for message in call} == {len(self.message)}
        assert call.code() is grpc.StatusCode.OK
        self.join(PATIENCE)
        assert not self.is_alive()


@pytest.mark.parametrize("size", [1, 1 << 14])
def test_ending_a_call_does_not_wait_for_a_message_without_credit(
    distinct_target: str, size: int
) -> None:
    window = 1 << 18
    server, channel, on_next, call = _open_call(distinct_target, window)
    # A thread reads the connection for another call, so that the window of this one fills.
    other = channel.unary_stream("/open/do")(b"")
    reader = threading.Thread(target=other.code)
    reader.start()
    sender = _Sender(on_next, size)
    whole = window // (size + lib.LR_OVERHEAD)
    await_that(lambda: sender.sent == whole, "a full window")
    sender.end_call(call)
    other.cancel()
    reader.join()
    channel.close()
    server.stop(None)


def test_ending_a_call_does_not_wait_for_a_large_message_in_transit(distinct_target: str) -> None:
    server, channel, on_next, call = _open_call(distinct_target)
    before = figures(server).frames_out
    sender = _Sender(on_next, LARGE)
    # It can begin, and not end before a thread reads.
    await_that(lambda: figures(server).frames_out > before, "a part of the message")
    assert sender.sent == 0
    sender.end_call(call)
    channel.close()
    server.stop(None)


def test_messages_of_several_threads_come_whole_and_each_once(distinct_target: str) -> None:
    server, channel, on_next, call = _open_call(distinct_target)
    sizes = [0, 100, 3_000, LARGE, 0, 100, LARGE, 3_000]

    def send(letter: bytes) -> None:
        for size in sizes:
            on_next(letter * (size + 1))

    letters = [b"a", b"b", b"c", b"d"]
    threads = [threading.Thread(target=send, args=(letter,)) for letter in letters]
    for thread in threads:
        thread.start()
    received = [next(call) for _ in range(len(letters) * len(sizes))]
    for thread in threads:
        thread.join(PATIENCE)
    on_next(None)
    assert list(call) == []
    for letter in letters:
        own = [message for message in received if message[:1] == letter]
        assert [len(message) - 1 for message in own] == sizes
        assert all(message == letter * len(message) for message in own)
    channel.close()
    server.stop(None)

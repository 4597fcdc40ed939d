"""Starting, stopping, limits, and the pool that is the user's."""

from __future__ import annotations

import gc
import logging
import socket
import threading
import time
import weakref
from concurrent import futures
from typing import Any

import grpc
import pytest

import localrpc
from tests.endings import at_end

from .house import PATIENCE, House, await_that, dial

Code = grpc.StatusCode
LARGE = 3 << 20
"""Bytes, more than the links take at a time."""


def test_stop_without_grace_ends_calls_at_once(house: House) -> None:
    call = house.unary("wait").future(b"")
    house.enter()
    assert house.server.stop(None).is_set()
    assert call.exception(PATIENCE).code() is Code.UNAVAILABLE
    assert not house.server.wait_for_termination(PATIENCE)


def test_stop_with_grace_lets_calls_finish(house: House) -> None:
    call = house.unary("wait").future(b"kept")
    house.enter()
    stopped = house.server.stop(PATIENCE)
    assert not stopped.is_set()
    house.gate.set()
    assert call.result(PATIENCE) == b"kept"
    assert stopped.wait(PATIENCE)


def test_stop_with_grace_waits_until_answers_are_out(house: House) -> None:
    answered = threading.Event()

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        at_end(context, answered.set)
        return bytes(LARGE)

    handler: Any = grpc.unary_unary_rpc_method_handler(answer)
    service = grpc.method_handlers_generic_handler("late", {"large": handler})
    house.server.add_generic_rpc_handlers((service,))
    call = house.channel.unary_unary("/late/large").future(b"")
    assert answered.wait(PATIENCE)
    stopped = house.server.stop(PATIENCE)
    assert call.result(PATIENCE) == bytes(LARGE)
    assert stopped.wait(PATIENCE)


def test_grace_that_runs_out_ends_calls(house: House) -> None:
    call = house.unary("wait").future(b"")
    house.enter()
    begin = time.monotonic()
    assert house.server.stop(0.1).wait(PATIENCE)
    assert time.monotonic() - begin < 2
    assert call.exception(PATIENCE).code() is Code.UNAVAILABLE


def test_an_idle_server_stops_before_its_grace_is_over(house: House) -> None:
    assert house.unary("echo")(b"x") == b"x"
    begin = time.monotonic()
    assert house.server.stop(PATIENCE).wait(PATIENCE)
    assert time.monotonic() - begin < PATIENCE / 2


def test_a_stopping_server_takes_no_calls(local_house: House) -> None:
    call = local_house.unary("wait").future(b"kept")
    local_house.enter()
    local_house.server.stop(PATIENCE)
    with pytest.raises(grpc.RpcError) as caught:
        local_house.unary("echo")(b"", timeout=PATIENCE)
    assert caught.value.code() is Code.UNAVAILABLE
    local_house.gate.set()
    assert call.result(PATIENCE) == b"kept"


def test_wait_for_termination_times_out(one_house: House) -> None:
    assert one_house.server.wait_for_termination(0.01)


def test_a_server_starts_once(one_house: House) -> None:
    with pytest.raises(ValueError, match="already-started"):
        one_house.server.start()


def test_one_server_listens_at_many_targets(one_house: House, any_target: str) -> None:
    port = int(any_target.rpartition(":")[2]) if any_target.startswith(("tcp:", "grpc:")) else 1
    assert one_house.server.add_insecure_port(any_target) == port
    with dial(any_target) as channel:
        assert channel.unary_unary("/house/echo")(b"x", timeout=PATIENCE) == b"x"


def test_a_name_in_use_is_refused(local_house: House) -> None:
    second = localrpc.server(futures.ThreadPoolExecutor(1))
    with pytest.raises(RuntimeError, match="Failed to bind"):
        second.add_insecure_port(local_house.target)
    assert local_house.unary("echo")(b"x") == b"x"


def test_calls_over_the_limit_are_refused_while_all_workers_are_busy(one_target: str) -> None:
    with House(one_target, workers=1, maximum_concurrent_rpcs=1) as house:
        first = house.unary("wait").future(b"x")
        house.enter()
        with pytest.raises(grpc.RpcError) as caught:
            house.unary("echo")(b"y", timeout=PATIENCE)
        assert caught.value.code() is Code.RESOURCE_EXHAUSTED
        assert caught.value.details() == "Concurrent RPC limit exceeded!"
        house.gate.set()
        assert first.result(PATIENCE) == b"x"


def test_foreign_jobs_get_their_turn_on_the_pool(one_target: str) -> None:
    with House(one_target, workers=1) as house:
        for number in range(20):
            assert house.unary("echo")(b"x", timeout=PATIENCE) == b"x"
            assert house.pool.submit(int, number).result(PATIENCE) == number


@pytest.mark.parametrize("workers", [1, 2])
def test_endless_jobs_do_not_starve_calls(one_target: str, workers: int) -> None:
    done = [0] * 4 * workers
    enough = threading.Event()

    def work(number: int) -> None:
        done[number] += 1
        if not enough.is_set():
            house.pool.submit(work, number)

    with House(one_target, workers=workers) as house:
        assert house.unary("echo")(b"x") == b"x"
        for number in range(len(done)):
            house.pool.submit(work, number)
        for _ in range(20):
            before = sum(done)
            assert house.unary("echo")(b"x", timeout=PATIENCE) == b"x"
            await_that(lambda before=before: sum(done) > before, "a job")  # type: ignore[misc]
        enough.set()


def test_the_pools_own_shutdown_returns(one_target: str) -> None:
    with futures.ThreadPoolExecutor(2) as pool:
        house = House(one_target, pool=pool)
        assert house.unary("echo")(b"x") == b"x"
    house.channel.close()
    assert "submit" not in vars(pool)


def test_a_subclassed_pool_gets_a_submit_per_call(one_target: str) -> None:
    submitted = []

    class Pool(futures.ThreadPoolExecutor):
        def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
            submitted.append(fn)
            return super().submit(fn, *args, **kwargs)

    with House(one_target, pool=Pool(2)) as house:
        for _ in range(3):
            assert house.unary("echo")(b"x") == b"x"
        assert len(submitted) == 3


def test_handlers_run_on_the_pools_threads(one_target: str) -> None:
    pool = futures.ThreadPoolExecutor(2, thread_name_prefix="mine")
    names = []

    def name(request: bytes, context: grpc.ServicerContext) -> bytes:
        names.append(threading.current_thread().name)
        return request

    with House(one_target, pool=pool) as house:
        handler: Any = grpc.unary_unary_rpc_method_handler(name)
        house.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("more", {"name": handler}),)
        )
        house.channel.unary_unary("/more/name")(b"")
    assert names[0].startswith("mine")


def test_server_interceptors_see_every_call(one_target: str) -> None:
    seen = []

    class Interceptor(grpc.ServerInterceptor):
        def intercept_service(self, continuation, details):  # type: ignore[no-untyped-def]
            seen.append(details.method)
            return continuation(details)

    with House(one_target, interceptors=(Interceptor(),)) as house:
        house.unary("echo")(b"x")
        house.unary("echo")(b"x")
    assert seen == ["/house/echo"] * 2


def test_a_handler_that_raises_system_exit_costs_only_its_call(
    one_house: House, caplog: pytest.LogCaptureFixture
) -> None:
    def leave(request: bytes, context: grpc.ServicerContext) -> bytes:
        raise SystemExit(1)

    caplog.set_level(logging.CRITICAL, "localrpc")
    one_house.server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "more", {"leave": grpc.unary_unary_rpc_method_handler(leave)}
            ),
        )
    )
    for _ in range(8):
        with pytest.raises(grpc.RpcError):
            one_house.channel.unary_unary("/more/leave")(b"", timeout=PATIENCE)
    assert one_house.unary("echo")(b"x", timeout=PATIENCE) == b"x"


def test_credentials_of_the_client_are_known(one_house: House) -> None:
    import os

    call = one_house.unary("wait").future(b"")
    one_house.enter()
    peer = localrpc.peer_credentials(one_house.contexts[0])
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.getuid(), os.getgid())
    one_house.gate.set()
    call.result(PATIENCE)


def test_a_stopped_servers_program_may_end_before_stop_returns(
    one_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = one_house.server._serving  # type: ignore[attr-defined]
    drain = serving.drain

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    def drain_and_end() -> None:
        drain()
        monkeypatch.setattr(threading.Thread, "start", refuse)

    serving.drain = drain_and_end
    assert one_house.unary("echo")(b"x") == b"x"
    assert one_house.server.stop(PATIENCE).wait(PATIENCE)


def test_kept_log_records_do_not_keep_the_server(
    runtime_directory: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = f"{runtime_directory}/kept.sock"

    def turn_away() -> weakref.ref[object]:
        with House(f"unix:{path}") as house, socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(path)
            stranger.sendall(bytes(64))
            await_that(lambda: "a client was refused" in caplog.text, "a refusal")
            return weakref.ref(house.server._serving)  # type: ignore[attr-defined]

    serving = turn_away()

    def gone() -> bool:
        gc.collect()
        return serving() is None

    await_that(gone, "the end of the server")

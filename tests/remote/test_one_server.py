"""One server for callers of this machine and of others: what it shares, how it stops."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent import futures
from functools import partial
from typing import Any

import grpc
import pytest

import localrpc
from tests.places import connect
from tests.ports import free_port
from tests.rpc.house import await_that

from .conftest import ROOT, Home
from .grpcio_peers import PATIENCE, failure

Code = grpc.StatusCode
Make = Callable[..., Home]

REFUSALS = (Code.UNAVAILABLE, Code.CANCELLED, Code.DEADLINE_EXCEEDED)
"""A call that meets grpcio's server while it stops is cancelled, or never answered."""


def everywhere(home: Home, runtime_directory: str) -> list[str]:
    """shm:, unix: and grpc: at once."""
    number = free_port()
    targets = [f"shm:one{number}", f"unix:{runtime_directory}/one{number}", "grpc:127.0.0.1:0"]
    return [home.open(target) for target in targets]


def test_handlers_interceptors_and_pool_are_the_same_everywhere(
    make_home: Make, runtime_directory: str
) -> None:
    seen = []
    threads = []

    class Interceptor(grpc.ServerInterceptor):
        def intercept_service(self, continuation, details):  # type: ignore[no-untyped-def]
            seen.append(details.method)
            return continuation(details)

    def where(request: bytes, context: grpc.ServicerContext) -> bytes:
        threads.append(threading.current_thread().name)
        return request

    pool = futures.ThreadPoolExecutor(2, thread_name_prefix="mine")
    home = make_home(pool=pool, interceptors=[Interceptor()])
    targets = everywhere(home, runtime_directory)
    home.server.start()
    handler: Any = grpc.unary_unary_rpc_method_handler(where)
    more = grpc.method_handlers_generic_handler("more", {"where": handler})
    home.server.add_generic_rpc_handlers([more])  # later, and yet for all of them
    for target in targets:
        assert home.dial(target).unary_unary("/more/where")(b"x", timeout=PATIENCE) == b"x"
    assert seen == ["/more/where"] * 3
    assert {name.split("_")[0] for name in threads} == {"mine"}


def test_registered_handlers_serve_everywhere(home: Home, runtime_directory: str) -> None:
    targets = everywhere(home, runtime_directory)
    handler: Any = grpc.unary_unary_rpc_method_handler(lambda request, context: b"registered")
    home.server.add_registered_method_handlers("fixed", {"do": handler})
    home.server.start()
    for target in targets:
        method: Any = home.dial(target).unary_unary("/fixed/do")
        assert method(b"", timeout=PATIENCE) == b"registered"


def test_targets_may_be_added_while_it_runs(home: Home) -> None:
    home.server.start()
    first, second = home.open(), home.open()
    assert first != second
    for target in (first, second):
        assert home.method(target, "echo")(b"x", timeout=PATIENCE) == b"x"


@pytest.mark.parametrize("busy_side", [0, 1])
def test_a_stop_with_grace_waits_for_both_sides(
    home: Home, one_target: str, busy_side: int
) -> None:
    targets = [home.open(one_target), home.open()]
    home.server.start()
    call = home.method(targets[busy_side], "wait").future(b"kept")
    assert home.service.entered.acquire(timeout=PATIENCE)
    stopped = home.server.stop(PATIENCE)
    for target in targets:
        echo = home.method(target, "echo")
        assert failure(partial(echo, b"", timeout=2)).code() in REFUSALS
    assert not stopped.is_set()
    home.service.gate.set()
    assert call.result(PATIENCE) == b"kept"
    assert stopped.wait(PATIENCE)
    assert not home.server.wait_for_termination(PATIENCE)


def test_a_stop_without_grace_ends_remote_calls(home: Home) -> None:
    target = home.open()
    home.server.start()
    call = home.method(target, "wait").future(b"")
    assert home.service.entered.acquire(timeout=PATIENCE)
    assert home.server.stop(None).is_set()
    assert call.exception(PATIENCE).code() in REFUSALS


def test_a_grace_may_be_cut_short(home: Home) -> None:
    target = home.open()
    home.server.start()
    call = home.method(target, "wait").future(b"")
    assert home.service.entered.acquire(timeout=PATIENCE)
    patient = home.server.stop(600)
    home.server.stop(None)
    assert patient.wait(PATIENCE)
    assert call.exception(PATIENCE) is not None


def test_a_stopped_server_opens_no_more_targets(home: Home) -> None:
    home.server.start()
    home.server.stop(None)
    with pytest.raises(RuntimeError, match="has been stopped"):
        home.open()


def test_a_server_without_references_stops_listening() -> None:
    port = free_port()

    def refused() -> bool:
        try:
            connect(f"grpc:127.0.0.1:{port}").close()
        except ConnectionRefusedError:
            return True
        return False

    with futures.ThreadPoolExecutor(1) as pool:
        server = localrpc.server(pool)
        server.add_insecure_port(f"grpc:127.0.0.1:{port}")
        server.start()
        assert not refused()
        del server
        gc.collect()
        await_that(refused, "the end of the server")


def test_both_sides_get_their_turn_on_one_thread(make_home: Make, one_target: str) -> None:
    home = make_home(workers=1)
    local, remote = home.open(one_target), home.open()
    home.server.start()
    enough = threading.Event()
    failed: list[Exception] = []

    def flood(method: Any) -> None:
        try:
            while not enough.is_set():
                method(b"x", timeout=PATIENCE)
        except grpc.RpcError as error:
            failed.append(error)

    methods = [home.method(target, "echo") for target in (local, remote) for _ in range(4)]
    threads = [threading.Thread(target=flood, args=(method,)) for method in methods]
    for thread in threads:
        thread.start()
    for _ in range(20):
        assert home.method(local, "echo")(b"l", timeout=PATIENCE) == b"l"
        assert home.method(remote, "echo")(b"r", timeout=PATIENCE) == b"r"
        assert home.pool.submit(int, 7).result(PATIENCE) == 7
    enough.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert not failed


def test_calls_over_the_limit_are_refused(make_home: Make) -> None:
    home = make_home(maximum_concurrent_rpcs=1)
    target = home.open()
    home.server.start()
    first = home.method(target, "wait").future(b"x")
    assert home.service.entered.acquire(timeout=PATIENCE)
    error = failure(lambda: home.method(target, "echo")(b"", timeout=PATIENCE))
    assert error.code() is Code.RESOURCE_EXHAUSTED
    home.service.gate.set()
    assert first.result(PATIENCE) == b"x"


def test_options_are_those_of_both(make_home: Make) -> None:
    options = [("grpc.max_receive_message_length", 1000), ("localrpc.window", 1 << 20)]
    home = make_home(options=iter(options), compression=grpc.Compression.Gzip)
    target = home.open()
    home.server.start()
    channel = home.dial(target, options=options, compression=grpc.Compression.Gzip)
    echo = channel.unary_unary("/stranger/echo")
    assert echo(bytes(900), timeout=PATIENCE) == bytes(900)
    error = failure(lambda: home.method(target, "echo")(bytes(1001), timeout=PATIENCE))
    assert error.code() is Code.RESOURCE_EXHAUSTED
    with pytest.raises(ValueError, match="unknown option"):
        localrpc.insecure_channel(target, [("localrpc.nothing", 1)])


def test_a_pool_that_is_shut_down_ends_both_sides(make_home: Make, one_target: str) -> None:
    home = make_home()
    local, remote = home.open(one_target), home.open()
    home.server.start()
    assert home.method(local, "echo")(b"x") == b"x"
    call = home.method(remote, "wait").future(b"kept")
    assert home.service.entered.acquire(timeout=PATIENCE)
    home.pool.shutdown(wait=False)
    assert failure(lambda: home.method(remote, "echo")(b"", timeout=2)).code() in REFUSALS
    home.service.gate.set()
    assert call.result(PATIENCE) == b"kept"
    assert not home.server.wait_for_termination(PATIENCE)


def test_a_pool_that_refuses_ends_the_remote_side(
    make_home: Make, caplog: pytest.LogCaptureFixture
) -> None:
    class Pool(futures.ThreadPoolExecutor):
        pass

    home = make_home(pool=Pool(1))
    target = home.open()
    home.server.start()
    home.pool.shutdown()
    error = failure(lambda: home.method(target, "echo")(b"", timeout=PATIENCE))
    assert error.code() in REFUSALS
    assert "accepts no more calls" in caplog.text


def test_a_remote_callers_credentials_are_unknown(home: Home) -> None:
    target = home.open()
    home.server.start()
    call = home.method(target, "wait").future(b"")
    assert home.service.entered.acquire(timeout=PATIENCE)
    peer = localrpc.peer_credentials(home.service.contexts[0])
    assert (peer.pid, peer.uid, peer.gid) == (0, -1, -1)
    home.service.gate.set()
    call.result(PATIENCE)
    with pytest.raises(TypeError, match="not the context of a call"):
        localrpc.peer_credentials(object())  # type: ignore[arg-type]


def test_a_place_where_grpc_cannot_listen_is_named(home: Home) -> None:
    with pytest.raises(RuntimeError, match="Failed to bind to address grpc:unix:/nonexistent/x"):
        home.open("grpc:unix:/nonexistent/x")
    with pytest.raises(RuntimeError, match="has an empty name; write grpc:TARGET"):
        home.open("grpc:")


PROGRAM = """
import sys
from concurrent import futures
import localrpc
from tests.remote.grpcio_peers import Service
service = Service()
with futures.ThreadPoolExecutor(2) as pool:
    server = localrpc.server(pool, [service.handlers()])
    port = server.add_insecure_port("grpc:127.0.0.1:0")
    server.start()
"""

WAITS = """
    localrpc.stop_on_signals(server, 20)
    print(port, flush=True)
    service.entered.acquire()
    print("entered", flush=True)
    sys.stdin.readline()
    service.gate.set()
    server.wait_for_termination()
    print("terminated")
"""


def test_a_program_ends_although_its_server_was_not_stopped() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, check=True, timeout=PATIENCE * 2)


def test_a_signal_stops_the_remote_side_gracefully() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM + WAITS],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        target = f"grpc:127.0.0.1:{int(process.stdout.readline())}"
        with localrpc.insecure_channel(target) as channel:
            wait: Any = channel.unary_unary("/stranger/wait")
            call = wait.future(b"kept")
            assert process.stdout.readline() == "entered\n"
            os.kill(process.pid, signal.SIGTERM)

            def refused() -> bool:
                with localrpc.insecure_channel(target) as other:
                    echo: Any = other.unary_unary("/stranger/echo")
                    try:
                        echo(b"", timeout=2)
                    except grpc.RpcError:
                        return True
                return False

            await_that(refused, "the end of new calls")
            process.stdin.write("go\n")
            process.stdin.flush()
            assert call.result(PATIENCE) == b"kept"
            assert process.stdout.readline() == "terminated\n"
            assert process.wait(PATIENCE) == 0

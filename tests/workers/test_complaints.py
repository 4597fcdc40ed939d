"""What users of process managers have complained of in public, as what they expected instead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

import localrpc
from tests.skips import cannot, need
from tests.workers.served import APP, PATIENCE, Served, ask, children_of, serving, who
from tests.workers.test_serve import Load, eventually, gone


def add(folder: Path, code: str) -> None:
    """Add code to the application."""
    with (folder / "app.py").open("a") as module:
        module.write(code)


# ---- workers come and go ----


def test_a_single_worker_serves_until_its_replacement_is_ready(folder: Path) -> None:
    """emmett-framework/granian#921: only for a fixed time. Kludex/uvicorn#2757: not at all."""
    target = f"shm:{folder}/s"
    add(
        folder,
        "def slow(server):\n"
        "    while os.path.exists('held'):\n"
        "        open('begun', 'w').close()\n"
        "        time.sleep(0.005)\n"
        "    setup(server)\n",
    )
    with serving(folder, "app:slow", target) as served, Load(target, threads=1) as load:
        (old,) = served.workers()
        (folder / "held").touch()
        served.signal(signal.SIGHUP)
        eventually((folder / "begun").exists, "the new worker starts")
        done = load.done
        eventually(lambda: load.done > done + 50, "calls end meanwhile")
        assert load.pids == {old}
        (folder / "held").unlink()
        (new,) = served.ready()
        eventually(lambda: gone(old) and new in load.pids, "the new worker serves alone")
    assert load.failures == []
    assert load.pids == {old, new}


def test_a_name_outlives_its_worker_which_is_replaced_however_it_ends(folder: Path) -> None:
    """benoitc/gunicorn#965: the socket's file was gone. emmett-framework/granian#148: a zombie."""
    target = f"unix:{folder}/s"
    add(
        folder,
        "def exits(request, context):\n"
        "    os._exit(7)\n"
        "KINDS['exits'] = grpc.unary_unary_rpc_method_handler(exits)\n",
    )
    with serving(folder, "app:setup", target) as served:
        name = os.stat(folder / "s")
        (first,) = served.workers()
        with localrpc.insecure_channel(target) as channel, pytest.raises(grpc.RpcError):
            ask(channel, "exits")
        second, _ = who(target)  # its connection is accepted once there is a worker
        assert f"(pid {first}) ended with exit code 7; another is started" in served.until("ended")
        served.ready()
        os.kill(second, signal.SIGTERM)
        (third,) = served.ready()
        eventually(lambda: served.workers() == [third], "it is the only process, and no zombie is")
        assert who(target)[0] == third
        assert os.path.samestat(os.stat(folder / "s"), name)
        assert served.stop() == 0


def test_a_worker_that_computes_is_not_killed_and_gets_no_new_channel(folder: Path) -> None:
    """Kludex/uvicorn#2506: it was killed. grpc/grpc#28867: clients waited for it, others idled."""
    target = f"shm:{folder}/s"
    os.mkfifo(folder / "pipe")
    add(
        folder,
        "import ctypes\n"
        "def computes(request, context):\n"
        "    pipe = os.open('pipe', os.O_RDWR)\n"
        "    open('begun', 'w').close()\n"
        "    ctypes.PyDLL(None).read(pipe, ctypes.create_string_buffer(1), 1)  # with the GIL\n"
        "    return b'%d' % os.getpid()\n"
        "KINDS['computes'] = grpc.unary_unary_rpc_method_handler(computes)\n",
    )
    with serving(folder, "app:setup", target, workers=2) as served:
        workers = served.workers()
        with localrpc.insecure_channel(target) as channel:
            computes = channel.unary_unary("/demo.App/computes").future(b"", timeout=PATIENCE)
            eventually((folder / "begun").exists, "it begins")
            (other,) = {who(target)[0] for _ in range(10)}
            assert not computes.done()
            (folder / "pipe").write_bytes(b"x")
            assert {other, int(computes.result())} == set(workers)
        assert served.workers() == workers
        assert served.stop() == 0


def test_a_change_is_not_lost_while_a_worker_starts(folder: Path) -> None:
    """emmett-framework/granian#529: nothing was reloaded any more after it."""
    module = folder / "app.py"
    module.write_text(
        "import os, time\n"
        "open('begun', 'w').close()\n"
        "while not os.path.exists('released'):\n"
        "    time.sleep(0.005)\n"
        "raise ValueError('not finished')\n"
    )
    with Served(folder, "app:setup", "--target", f"shm:{folder}/s", "--reload") as served:
        eventually((folder / "begun").exists, "it starts")
        module.write_text(APP)
        served.until("app.py changed")
        (folder / "released").touch()
        served.ready()
        assert served.stop() == 0
    assert "ValueError: not finished" in "\n".join(served.lines)


def test_a_reload_does_not_wait_for_open_streams(folder: Path) -> None:
    """sysid/sse-starlette#128: it began when the client had closed its stream."""
    target = f"shm:{folder}/s"
    add(
        folder,
        "import asyncio\n"
        "async def streams(request, context):\n"
        "    while True:\n"
        "        yield VERSION\n"
        "        await asyncio.sleep(0.01)\n"
        "async def serve_streams(server):\n"
        "    kinds = {'who': grpc.unary_unary_rpc_method_handler(async_who),\n"
        "             'streams': grpc.unary_stream_rpc_method_handler(streams)}\n"
        "    server.add_generic_rpc_handlers(\n"
        "        [grpc.method_handlers_generic_handler('demo.App', kinds)])\n",
    )
    module = folder / "app.py"
    text = module.read_text()
    with serving(folder, "app:serve_streams", target, "--reload") as served:
        (old,) = served.workers()
        with localrpc.insecure_channel(target) as channel:
            stream = channel.unary_stream("/demo.App/streams")(b"", timeout=PATIENCE)
            assert next(stream) == b"one"
            module.write_text(text.replace('b"one"', 'b"two"') + "# longer, or its bytecode serves")
            (new,) = served.ready()
            eventually(lambda: who(target) == (new, "two"), "the new worker serves")
            assert next(stream) == b"one"
            stream.cancel()
        eventually(lambda: gone(old), "the old worker ends")
        assert served.stop() == 0


# ---- the end ----


def test_a_signal_to_every_process_ends_calls_first(folder: Path) -> None:
    """Kludex/uvicorn#1160: the parent passed it on; a worker, which had two then, ended at once."""
    target = f"shm:{folder}/s"
    name = folder / "released"
    with serving(folder, "app:setup", target) as served:
        with localrpc.insecure_channel(target) as channel:
            call = channel.unary_unary("/demo.App/until_released")
            future = call.future(str(name).encode(), timeout=PATIENCE)
            eventually(name.with_suffix(".begun").exists, "the call has begun")
            (worker,) = served.workers()
            served.signal(signal.SIGTERM)
            os.kill(worker, signal.SIGTERM)
            served.until("SIGTERM: stopping")
            name.touch()
            assert int(future.result()) == worker
        assert served.ended() == 0
    assert not [line for line in served.lines if "ERROR" in line]


def test_calls_that_a_new_worker_has_at_once_are_not_dropped_by_a_stop(folder: Path) -> None:
    """benoitc/gunicorn#2529: requests in progress were dropped. Here before it says it is ready."""
    target = f"shm:{folder}/s"
    name = folder / "released"
    add(
        folder,
        "def late(server):\n"
        "    setup(server)\n"
        "    start = server.start\n"
        "    def start_late():\n"
        "        start()\n"
        "        while not os.path.exists('released'):\n"
        "            time.sleep(0.005)\n"
        "    server.start = start_late\n",
    )
    with (
        Served(folder, "app:late", "--target", target) as served,
        localrpc.insecure_channel(target) as channel,
    ):
        call = channel.unary_unary("/demo.App/until_released")
        future = call.future(str(name).encode(), timeout=PATIENCE, wait_for_ready=True)
        eventually(name.with_suffix(".begun").exists, "the call has begun")
        served.signal(signal.SIGTERM)
        served.until("SIGTERM: stopping")
        name.touch()
        assert int(future.result()) > 0
        assert served.ended() == 0


@pytest.mark.parametrize("app", ["app:setup", "app:async_setup"])
def test_a_client_that_watches_the_health_delays_no_stop(folder: Path, app: str) -> None:
    """sysid/sse-starlette#128: what has no end of its own was waited for. This is the server's."""
    target = f"shm:{folder}/s"
    with serving(folder, app, target) as served, localrpc.insecure_channel(target) as channel:
        request = health_pb2.HealthCheckRequest()
        watch = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=PATIENCE)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        assert served.stop() == 0
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.RpcError):
            next(watch)
        assert watch.code() is grpc.StatusCode.UNAVAILABLE
        assert watch.details() == "the server stops"


# ---- process 1 of a container ----


def test_process_1_reaps_what_it_inherits_and_takes_it_for_no_worker(folder: Path) -> None:
    """benoitc/gunicorn#3689: a stranger's exit code was a worker's error, and ended the server."""
    command = [need("unshare"), "--pid", "--fork", "--kill-child"]
    if subprocess.run([*command, "true"], capture_output=True).returncode:
        cannot("needs the right to have namespaces, as root has it outside containers")
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec {" ".join(command)} {sys.executable} "$@"\n')
    python.chmod(0o755)
    target = f"unix:{folder}/s"
    os.mkfifo(folder / "pipe")
    add(
        folder,
        "import subprocess\n"
        "def leaves(request, context):\n"
        "    subprocess.run(['sh', '-c', '(read line; exit 3) < pipe &'], check=True)\n"
        "    return b''\n"
        "KINDS['leaves'] = grpc.unary_unary_rpc_method_handler(leaves)\n",
    )
    with serving(folder, "app:setup", target, python=str(python)) as served:
        (supervisor,) = served.workers()
        (worker,) = children_of(supervisor)
        with localrpc.insecure_channel(target) as channel:
            ask(channel, "leaves")
        eventually(lambda: len(children_of(supervisor)) == 2, "it is the supervisor's now")
        (folder / "pipe").write_text("line\n")
        eventually(lambda: children_of(supervisor) == [worker], "it is reaped")
        who(target)
        os.kill(supervisor, signal.SIGTERM)
        assert served.ended() == 0
    assert not [line for line in served.lines if "ERROR" in line]

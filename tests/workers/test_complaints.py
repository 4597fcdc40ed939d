"""What users of process managers have complained of in public, as what they expected instead."""

from __future__ import annotations

import signal
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

import localrpc
from tests.workers.served import APP, PATIENCE, Served, serving
from tests.workers.test_serve import eventually


def add(folder: Path, code: str) -> None:
    """Add code to the application."""
    with (folder / "app.py").open("a") as module:
        module.write(code)


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

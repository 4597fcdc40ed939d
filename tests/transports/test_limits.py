"""The limits on pipes and queues, of a user and of the machine, and the errors beyond them."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

import localrpc
from localrpc.transports.byte_channels import grow_pipe
from tests.skips import root_only

from .helpers import ROOT

LARGE = 1 << 20
PATIENCE = 60
_USERS = 60_000 + os.getpid() % 4_000
"""A user of this run who has no pipe and no queue yet."""


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """One that the fresh user owns, in the place of the runtime directory."""
    with tempfile.TemporaryDirectory(prefix="lrl") as path:
        os.chown(path, _USERS, _USERS)
        monkeypatch.setenv("LOCALRPC_RUNTIME_DIR", path)
        yield path


def as_fresh_user(action: Callable[[], str]) -> str:
    """What `action` returns in a forked child, or the error that it raises."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with tempfile.TemporaryDirectory() as path:
                fill(
                    f"pipe:{path}/server", 1, bytes(LARGE)
                )  # to import all that only root may read
            resource.setrlimit(resource.RLIMIT_MSGQUEUE, (819_200, 819_200))
            os.setgroups([])
            os.setresgid(_USERS, _USERS, _USERS)
            os.setresuid(_USERS, _USERS, _USERS)
            said = action()
        except BaseException as error:
            said = f"{type(error).__name__} {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        said = stream.read()
    os.waitpid(child, 0)
    return said


def serve(target: str) -> grpc.Server:
    handler: Any = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
    handlers = grpc.method_handlers_generic_handler("s", {"echo": handler})
    server = localrpc.server(futures.ThreadPoolExecutor(8), (handlers,))
    server.add_insecure_port(target)
    server.start()
    return server


def fill(target: str, most: int, message: bytes = b"x") -> str:
    """Return how many clients at once have their calls answered, and the next one's error."""
    server = serve(target)
    channels: list[Any] = []
    told = "no limit"
    for number in range(most):
        channel = localrpc.insecure_channel(target)
        channels.append(channel)
        echo: Any = channel.unary_unary("/s/echo")
        try:
            assert echo(b"%d" % number, timeout=PATIENCE) == b"%d" % number
        except grpc.RpcError as error:
            known: Any = error
            told = f"{known.code().name} {known.details()}"
            channels.pop().close()
            break
    with futures.ThreadPoolExecutor(8) as pool:
        calls = [channel.unary_unary("/s/echo") for channel in channels]
        answers = list(pool.map(lambda call: call(message, timeout=PATIENCE), calls))
    assert answers == [message] * len(channels)
    for channel in channels:
        channel.close()
    server.stop(None)
    return f"{len(channels)} {told}"


@root_only
def test_an_ordinary_user_has_100_clients_over_pipes(folder: str) -> None:
    said = as_fresh_user(lambda: fill(f"pipe:{folder}/server", 100, bytes(LARGE)))
    assert said == "100 no limit"
    assert not os.listdir(folder)


@root_only
def test_a_user_without_room_for_pipes_has_small_ones(folder: str) -> None:
    def crowd() -> str:
        kept = []
        for _ in range(64):  # of 1 MiB each
            reading, writing = os.pipe()
            kept += [reading, writing]
            grow_pipe(writing, LARGE)
        return fill(f"pipe:{folder}/server", 10, bytes(LARGE))

    assert as_fresh_user(crowd) == "10 no limit"


@root_only
def test_an_ordinary_user_has_15_clients_over_queues_and_an_error_names_the_limit(
    folder: str,
) -> None:
    said = as_fresh_user(lambda: fill("mq:server", 40))
    number, code, *words = said.split(" ", 2)
    assert int(number) >= 15
    assert code == "RESOURCE_EXHAUSTED"
    for word in ("819200 bytes in all", "ulimit -q", "fs.mqueue.queues_max", "LimitMSGQUEUE"):
        assert word in words[0]
    assert "files open" not in said
    assert not os.listdir(folder)


@root_only
def test_a_user_without_queues_gets_an_error_at_the_start(folder: str) -> None:
    def start() -> str:
        resource.setrlimit(resource.RLIMIT_MSGQUEUE, (0, 0))
        serve("mq:server")
        return "listening"

    said = as_fresh_user(start)
    assert said.startswith(
        "ListenError Failed to bind to address mq:server: no more message queues"
    )
    assert "ulimit -q" in said
    assert not os.listdir(folder)


own_queues = pytest.mark.usefixtures("ipc_namespaces")

IN_A_NAMESPACE = """
import sys
for setting in sys.argv[1].split():
    name, _, value = setting.partition("=")
    with open(f"/proc/sys/{name}", "w") as file:
        file.write(value)
from tests.transports.test_limits import fill
target, most, size = sys.argv[2:]
print(fill(target, int(most), bytes(int(size))))
"""


def in_a_namespace(settings: str, target: str, most: int, size: int) -> str:
    """What fill() says where these settings hold."""
    done = subprocess.run(
        ["unshare", "-i", sys.executable, "-c", IN_A_NAMESPACE, settings, target, str(most),
         str(size)],
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
    )  # fmt: skip
    return done.stdout.strip()


@own_queues
def test_a_machine_without_room_for_system_v_queues_is_named(runtime_directory: Path) -> None:
    said = in_a_namespace("kernel/msgmni=9", "sysvmq:server", 10, 1)
    assert said.startswith("4 RESOURCE_EXHAUSTED ")
    for word in ("System V message queues", "limited to 9", "sysctl kernel.msgmni"):
        assert word in said
    assert not list(runtime_directory.iterdir())


@own_queues
@pytest.mark.parametrize(
    "settings",
    [
        "kernel/msgmax=64",
        "kernel/msgmax=1000 kernel/msgmnb=3000",
        "kernel/msgmnb=1000",
        "kernel/msgmax=65536 kernel/msgmnb=1000000",
    ],
)
def test_small_and_large_system_v_queues_are_respected(settings: str) -> None:
    assert in_a_namespace(settings, "sysvmq:server", 3, 200_000) == "3 no limit"


@own_queues
@pytest.mark.parametrize(
    "settings",
    ["fs/mqueue/msg_max=1 fs/mqueue/msgsize_max=128", "fs/mqueue/msgsize_max=1000"],
)
def test_small_posix_queues_are_respected(settings: str) -> None:
    assert in_a_namespace(settings, "mq:server", 3, 200_000) == "3 no limit"

"""A user without free epoll watches: a connection ends for it, with the reason.

peers/watches.c is preloaded and has epoll_ctl(2) fail from a moment on.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import fresh_target
from tests.skips import need

from .helpers import ROOT, outcome

SERVER = """
import sys
from concurrent import futures
import grpc, localrpc
target = sys.argv[1]
echo = grpc.unary_unary_rpc_method_handler(lambda request, context: request[:1])
handlers = grpc.method_handlers_generic_handler("w", {"echo": echo})
options = [("grpc.max_receive_message_length", -1)]
server = localrpc.server(futures.ThreadPoolExecutor(4), (handlers,), options=options)
server.add_insecure_port(target)
server.start()
print("serving", flush=True)
sys.stdin.read()
server.stop(None)
"""
# The server stands still while a client sends more than the system keeps in transit.
SCENE = """
import os, signal, subprocess, sys
import grpc, localrpc
target, moment, kind, server = sys.argv[1:]
def refuse(kind):
    with open(moment, "w") as file:
        file.write(kind)
def status(echo, request):
    try:
        return echo(request, timeout=15)
    except grpc.RpcError as error:
        return f"{error.code().name} {error.details()}"
def echo_of(channel):
    return channel.unary_unary("/w/echo")
untouched = {key: value for key, value in os.environ.items() if key != "LR_TEST_NO_WATCHES"}
child = subprocess.Popen(
    [sys.executable, "-c", server, target],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=untouched,
)
assert child.stdout.readline() == b"serving\\n"
bystander, one = localrpc.insecure_channel(target), localrpc.insecure_channel(target)
with bystander, one:
    assert status(echo_of(bystander), b"x") == status(echo_of(one), b"x") == b"x"
    if kind == "o":
        os.kill(child.pid, signal.SIGSTOP)
        refuse(kind)
        print(status(echo_of(one), bytes(32 << 20)))
        os.kill(child.pid, signal.SIGCONT)
    else:
        refuse(kind)
        with localrpc.insecure_channel(target) as another:
            print(status(echo_of(another), b"x"))
    refuse("")
    print(status(echo_of(bystander), b"y"), status(echo_of(one), b"z"))
child.stdin.close()
child.wait()
"""


@pytest.fixture(scope="session")
def watches(tmp_path_factory: pytest.TempPathFactory) -> str:
    library = tmp_path_factory.mktemp("watches") / "watches.so"
    source = str(ROOT / "tests/peers/watches.c")
    command = [need("gcc"), "-shared", "-fPIC", "-O1", "-Wall", source, "-o", str(library)]
    subprocess.run(command, check=True)
    return str(library)


def run(watches: str, kind: str, what: str, folder: Path) -> list[str]:
    moment = str(folder / "moment")
    env = {"LD_PRELOAD": watches, "LR_TEST_NO_WATCHES": moment}
    target = fresh_target(kind, str(folder))
    return outcome(SCENE, target, moment, what, SERVER, env=env).splitlines()


@pytest.mark.parametrize("kind", ["unix", "tcp", "pipe", "mq"])
def test_a_side_that_cannot_be_notified_of_room_does_not_wait(
    watches: str, kind: str, tmp_path: Path, runtime_directory: Path
) -> None:
    said, others = run(watches, kind, "o", tmp_path)
    assert said.startswith("UNAVAILABLE"), said
    assert "the kernel does not watch its descriptors: No space left on device" in said
    assert others == "b'y' b'z'"


@pytest.mark.parametrize("kind", ["shm-eventfd", "unix", "tcp", "pipe", "mq", "sysvmq", "file"])
def test_a_connection_that_cannot_be_watched_is_refused_with_the_reason(
    watches: str, kind: str, tmp_path: Path, runtime_directory: Path
) -> None:
    said, others = run(watches, kind, "i", tmp_path)
    assert said.startswith("UNAVAILABLE"), said
    assert "No space left on device" in said
    assert others == "b'y' b'z'"

"""A process that gevent or eventlet has patched gets an error that says what not to patch."""

from __future__ import annotations

import subprocess
import sys

import pytest

PATIENCE = 60

PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all({})",
    "eventlet": (
        "import warnings; warnings.simplefilter('ignore')\n"
        "import eventlet; eventlet.monkey_patch({})"
    ),
}

CALL = """
from concurrent import futures
import grpc, localrpc, os, sys, threading

methods = {"echo": grpc.unary_unary_rpc_method_handler(lambda request, context: request)}
handlers = [grpc.method_handlers_generic_handler("s", methods)]
"""

REFUSED = """
for make in (
    lambda: localrpc.server(futures.ThreadPoolExecutor(1)),
    lambda: localrpc.insecure_channel("shm:absent"),
    lambda: localrpc.spawn_channel([sys.executable, "-c", ""]),
    lambda: localrpc.fork_channel(lambda server: None),
):
    try:
        make()
    except RuntimeError as error:
        print(type(error).__name__, error)
    else:
        print("made")
localrpc.insecure_channel("grpc:127.0.0.1:1").close()
os._exit(0)
"""

WORKS = """
for target in sys.argv[1:]:
    server = localrpc.server(futures.ThreadPoolExecutor(2), handlers=handlers)
    server.add_insecure_port(target)
    server.start()
    with localrpc.insecure_channel(target) as channel:
        echo = channel.unary_unary("/s/echo")
        print(target, echo(b"first", timeout=30))
        done = threading.Event()
        call = echo.future(b"second", timeout=30)
        call.add_done_callback(lambda _: done.set())
        print(target, call.result(), done.wait(30))
    server.stop(None)
os._exit(0)
"""


def _run(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-u", "-c", program, *arguments],  # os._exit() writes no buffer out
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
    )
    return done.stdout


@pytest.mark.parametrize("library", PATCHES)
def test_a_monkey_patched_process_gets_an_error_at_once(library: str) -> None:
    lines = _run(PATCHES[library].format("") + CALL + REFUSED).splitlines()
    told = [line for line in lines if line.startswith("Unsupported")]
    assert len(told) == 4, lines
    assert all(f"{library} has replaced thread, socket, select" in line for line in told)
    assert all("thread=False" in line for line in told)


@pytest.mark.parametrize("library", PATCHES)
def test_a_patch_of_one_thing_that_matters_is_enough(library: str) -> None:
    told = _run(PATCHES[library].format("thread=False, socket=False") + CALL + REFUSED)
    assert f"{library} has replaced select" in told
    assert "made" not in told


KINDS = ["shm-eventfd", "unix", "tcp", "pipe", "mq", "file", "inproc"]


@pytest.mark.parametrize("library", PATCHES)
def test_what_the_text_advises_works(library: str, runtime_directory: str) -> None:
    """Over one transport after another; the program ends there where one does not."""
    from localrpc.drive.greenlets import _LIBRARIES
    from tests.conftest import fresh_target

    (vital,) = (each.vital for each in _LIBRARIES if each.name == library)
    without = ", ".join(f"{name}=False" for name in vital)
    targets = [fresh_target(kind, runtime_directory) for kind in KINDS]
    told = _run(PATCHES[library].format(without) + CALL + WORKS, *targets)
    each = "{0} b'first'\n{0} b'second' True\n"
    assert told == "".join(each.format(target) for target in targets)

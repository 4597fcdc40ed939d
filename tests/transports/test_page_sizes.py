"""Rings where a page has 16 or 64 KiB, and where the two sides or the system do not agree.

This system's pages are what they are: peers/pages.c is preloaded, and has mmap(2) and
sysconf(3) behave as with larger ones.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from localrpc._core import lib
from tests.skips import need

from .helpers import ROOT, AcceptingServer, dial, outcome

FAKE = ROOT / "tests/peers/pages.c"
SIZES = (16384, 65536)

# A call of a MiB in both directions, and how it travelled.
CALL = """
import sys
from concurrent import futures
import grpc, localrpc
from localrpc._core import lib
from tests.transports.helpers import dial
target = sys.argv[1]
handler = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
server = localrpc.server(
    futures.ThreadPoolExecutor(2), (grpc.method_handlers_generic_handler("p", {"echo": handler}),)
)
server.add_insecure_port(target)
server.start()
message = bytes(range(256)) * 4096
with localrpc.insecure_channel(target) as channel:
    echo = channel.unary_unary("/p/echo")
    assert all(echo(message, timeout=20) == message for _ in range(8))
connection = dial(target)
print(lib.lr_page(), connection.facts.ring_size, connection.facts.fell_back)
connection.close()
server.stop(None)
"""
DIAL = """
import sys
from tests.transports.helpers import dial
connection = dial(sys.argv[1])
print(connection.facts.fell_back)
connection.close()
"""


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> str:
    library = tmp_path_factory.mktemp("pages") / "pages.so"
    command = [need("gcc"), "-shared", "-fPIC", "-O1", "-Wall", str(FAKE), "-o", str(library)]
    subprocess.run(command, check=True)
    return str(library)


@pytest.mark.parametrize("memory", ["memfd", "posix", "sysv"])
@pytest.mark.parametrize("size", SIZES)
def test_a_ring_begins_behind_a_page_of_any_size(
    pages: str, size: int, memory: str, tmp_path: Path
) -> None:
    env = {"LD_PRELOAD": pages, "LR_TEST_PAGES": str(size)}
    said = outcome(CALL, f"shm:{tmp_path}/s?memory={memory}", env=env)
    assert said == f"{size} {1 << 20} None"


@pytest.mark.parametrize("size", SIZES)
def test_a_ring_that_cannot_be_mapped_leaves_the_connection_on_its_socket(
    pages: str, size: int, tmp_path: Path
) -> None:
    env = {"LD_PRELOAD": pages, "LR_TEST_PAGES": str(size), "LR_TEST_PAGES_UNTOLD": "1"}
    said = outcome(CALL, f"shm:{tmp_path}/s", env=env)
    assert said == f"{lib.lr_page()} 0 on the server: it cannot be mapped: Invalid argument"


def test_sides_with_pages_of_different_sizes_stay_on_the_socket(pages: str, tmp_path: Path) -> None:
    target = f"shm:{tmp_path}/s"
    env = {"LD_PRELOAD": pages, "LR_TEST_PAGES": "16384"}
    with AcceptingServer(target) as accepting:
        said = outcome(DIAL, target, env=env)
        assert said == f"the client's pages have 16384 bytes, the server's {lib.lr_page()}"
        assert accepting.connection().facts.ring_size == 0
        dial(target).close()
        assert accepting.connection(1).facts.ring_size


def test_the_fake_refuses_what_such_a_system_refuses(pages: str) -> None:
    script = "import mmap; mmap.mmap(0, 4096, offset=4096)"
    script = f"import os, mmap\nfd = os.memfd_create('x')\nos.truncate(fd, 1 << 17)\n{script}"
    script = script.replace("mmap(0,", "mmap(fd,")
    env = {"LD_PRELOAD": pages, "LR_TEST_PAGES": "16384", "LR_TEST_PAGES_UNTOLD": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    assert "OSError: [Errno 22]" in done.stderr

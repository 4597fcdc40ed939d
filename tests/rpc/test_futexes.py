"""Where a server or client that asks for futexes has to wait for other things as well."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from tests.conftest import fresh_target

from .house import PATIENCE, House, dial

ROOT = Path(__file__).parents[2]


def test_a_server_serves_all_kinds_of_connections_at_once(
    runtime_directory: str,
) -> None:
    kinds = ("shm-futex", "unix", "shm-futex", "shm-signal", "shm-eventfd", "shm-spin")
    targets = [fresh_target(kind, runtime_directory) for kind in kinds]
    with House(targets[0]) as house, ExitStack() as stack:
        for target in targets[1:]:
            house.server.add_insecure_port(target)
        calls = [stack.enter_context(dial(target)).unary_unary("/house/echo") for target in targets]
        for length in range(1, 60):  # as many as it takes for one to be among the cold ones
            for call in calls:
                for _ in range(length % 12):
                    assert call(b"x", timeout=PATIENCE) == b"x"


def test_more_callers_than_futexes_can_be_waited_for(runtime_directory: str) -> None:
    with House(fresh_target("shm-futex", runtime_directory)) as house, ExitStack() as stack:
        channels = [stack.enter_context(dial(house.target)) for _ in range(140)]
        calls = [channel.unary_unary("/house/echo") for channel in channels]
        for _ in range(3):
            for call in calls:
                assert call(b"x", timeout=PATIENCE) == b"x"


WITHOUT_FUTEX_WAITV = """
import ctypes, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
filters = b"".join(struct.pack("<HBBI", *one) for one in (
    (0x20, 0, 0, 0),            # load the number of the system call
    (0x15, 0, 1, 449),          # futex_waitv?
    (0x06, 0, 0, 0x00050026),   # fail with ENOSYS
    (0x06, 0, 0, 0x7FFF0000),   # allow
))
class Program(ctypes.Structure):
    _fields_ = [("count", ctypes.c_ushort), ("filters", ctypes.c_char_p)]
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Program(4, filters)), 0, 0) == 0

sys.path.insert(0, sys.argv[1])
from localrpc.transports import parse_target
from localrpc.options import parse_options
from localrpc.transports import Attempt, transport_for
from tests.rpc.house import House
with House(sys.argv[2]) as house:
    assert house.unary("echo")(b"x") == b"x"
    address = parse_target(sys.argv[2])
    connection = transport_for("shm").dialer(address, parse_options(None)).dial(Attempt())
    print(connection.facts.wakeup)
    connection.close()
"""


def test_an_old_kernel_makes_it_an_eventfd(runtime_directory: str) -> None:
    target = fresh_target("shm-futex", runtime_directory)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_FUTEX_WAITV, str(ROOT), target],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("eventfd\n", "")

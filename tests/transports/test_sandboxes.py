"""Where a sandbox or an old kernel refuses a system call that has a fallback, that is taken.

A sandbox whose list is older than the call answers EPERM (container runtimes before 2020,
service managers' filters), a kernel that does not know it ENOSYS, and of an option or a
flag EINVAL or ENOPROTOOPT. Each is tried alone, and all together, over every transport.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import TARGETS, fresh_target
from tests.peers import seccomp
from tests.skips import only_where

from .helpers import ROOT

pytestmark = only_where(
    seccomp.SUPPORTED, "the numbers of this machine's system calls are not known here"
)

# Of preadv2 an old kernel refuses what an eventfd is read with (EOPNOTSUPP).
CALLS = (
    "epoll_pwait2",
    "futex_waitv",
    "memfd_create",
    "pidfd_open",
    "inotify_init1",
    "preadv2",
    "fallocate",
)
PARTS = {"SO_PEERPIDFD": "ENOPROTOOPT", "SO_PEERGROUPS": "ENOPROTOOPT"}
PARTS |= {"MFD_NOEXEC_SEAL": "EINVAL", "AF_NETLINK": "EAFNOSUPPORT"}
REFUSALS = [
    *((name, reason) for name in CALLS for reason in ("EPERM", "ENOSYS")),
    *((name, reason) for name, usual in PARTS.items() for reason in ("EPERM", usual)),
    ("tgkill", "EPERM"),
    (",".join((*CALLS, *PARTS)), "EPERM"),
]
KINDS = [kind for kind in TARGETS if kind not in ("shm-spin", "unix-abstract")]
# Transports without a socket notice a death by a pidfd alone, and tcp: identifies by sock_diag.
CANNOT = {"pidfd_open": ("mq", "sysvmq"), "AF_NETLINK": ("tcp",)}


@pytest.mark.parametrize(
    ("refused", "reason"), REFUSALS, ids=[f"{name[:30]}-{why}" for name, why in REFUSALS]
)
def test_calls_go_on_without(refused: str, reason: str, runtime_directory: str) -> None:
    targets = [fresh_target(kind, str(runtime_directory)) for kind in KINDS]
    command = [sys.executable, "-m", "tests.peers.seccomp", "--refuse", f"{refused}={reason}"]
    done = subprocess.run(
        [*command, "-m", "tests.peers.sandboxed", *targets],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    impossible = {scheme for name in refused.split(",") for scheme in CANNOT.get(name, ())}
    for line, kind in zip(done.stdout.splitlines(), KINDS, strict=True):
        scheme, said = line.split(" ", 1)
        if scheme in impossible:
            assert said.startswith("UNAVAILABLE"), line
        else:
            assert said == "ok", (kind, line, done.stderr[-2000:])


def test_the_filter_refuses_what_it_says(tmp_path: Path) -> None:
    script = """
import os, socket
def reason(do):
    try:
        return do() and None
    except OSError as error:
        return error.errno
ours, theirs = socket.socketpair()
print(reason(lambda: os.pidfd_open(os.getpid())), reason(lambda: os.memfd_create("x", 8 | 2)),
      reason(lambda: ours.getsockopt(socket.SOL_SOCKET, 77)),
      reason(lambda: ours.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)),
      reason(lambda: os.memfd_create("x", 2)))
"""
    names = "pidfd_open,MFD_NOEXEC_SEAL,SO_PEERPIDFD"
    command = [sys.executable, "-m", "tests.peers.seccomp", "--refuse", f"{names}=EPERM"]
    done = subprocess.run([*command, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "1 1 1 None None\n", done.stderr

"""What a target names carries every byte, the handshake too: no socket stands behind it.

The suites of links and of whole calls run once more where sockets are forbidden.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.peers import seccomp
from tests.skips import only_where

from .helpers import ROOT

WITHOUT_SOCKETS = ("pipe", "mq", "sysvmq", "file")
SUITES = (
    "tests/links/test_conformance.py",
    "tests/rpc/test_calls.py",
    "tests/rpc/test_children.py",
)

needs_seccomp = only_where(
    seccomp.SUPPORTED, "the numbers of this machine's system calls are not known here"
)

TRY = """
import errno, os, socket
def refused(make):
    try:
        make()
    except PermissionError as error:
        return error.errno == errno.EPERM
    return False
def connect():
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.connect(0, None, 0) < 0:
        raise OSError(ctypes.get_errno(), "connect")
print(refused(socket.socket), refused(socket.socketpair), refused(connect))
"""


def without_sockets(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python that may make none, nor may what it starts."""
    return subprocess.run(
        [sys.executable, "-m", "tests.peers.seccomp", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
    )


@needs_seccomp
def test_sockets_are_forbidden() -> None:
    assert without_sockets("-c", TRY).stdout == "True True True\n"
    grandchild = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {TRY!r}])"
    assert without_sockets("-c", grandchild).stdout == "True True True\n"


@needs_seccomp
def test_the_suites_pass_without_sockets() -> None:
    kinds = " or ".join(f"[{kind}" for kind in WITHOUT_SOCKETS)
    wanted = f"({kinds}) and not many_targets"  # of which one is a socket
    plugins = ("-p", "no:xdist", "-p", "no:cacheprovider")
    done = without_sockets("-m", "pytest", *plugins, *SUITES, "-k", wanted)
    assert done.returncode == 0, done.stdout
    passed = re.findall(r"(\d+) passed", done.stdout)
    assert int(passed[0]) > 20 * len(WITHOUT_SOCKETS)

"""An IPC namespace of this run's own, and its own /dev/shm: all that is in them is the run's."""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import tempfile
from collections.abc import Iterator

_CLONE_NEWNS, _CLONE_NEWIPC = 0x00020000, 0x08000000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000

posix_queues: str | None = None
"""Where the POSIX queues of the namespace are listed; None without a namespace."""


@contextlib.contextmanager
def entered() -> Iterator[None]:
    """Root alone can have one. The calling thread gets it, and what that starts from here on."""
    global posix_queues
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS | _CLONE_NEWIPC) < 0:
        yield
        return
    folder = tempfile.mkdtemp(prefix="lrt-mqueue")
    try:
        # Or the mount would be seen outside.
        private = libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) == 0
        if private and libc.mount(b"none", folder.encode(), b"mqueue", 0, None) == 0:
            libc.mount(b"none", b"/dev/shm", b"tmpfs", 0, b"mode=1777")
            posix_queues = folder
        yield
    finally:
        if posix_queues is not None:
            libc.umount2(folder.encode(), 2)  # MNT_DETACH: a child may be at it
            posix_queues = None
        shutil.rmtree(folder, ignore_errors=True)

"""The memory of a ring: one sealed memfd per direction."""

from __future__ import annotations

import fcntl
import os

CONTROL_PAGE = 4096

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
# linux/memfd.h since 6.3, where a memfd without it is logged or even refused.
_MFD_NOEXEC_SEAL = 8


def create_ring(size: int) -> int:
    """A memfd of a control page and `size` bytes, all of it really there.

    Raises OSError: ENOSPC, ENOMEM or EMFILE are what a full machine says.
    """
    fd = _memfd()
    try:
        # Without this the first touch of a page that is not to be had is a SIGBUS.
        os.posix_fallocate(fd, 0, CONTROL_PAGE + size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _memfd() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("localrpc-ring", flags | _MFD_NOEXEC_SEAL)
    except OSError:
        return os.memfd_create("localrpc-ring", flags)

"""Features of the kernel, tried out."""

from __future__ import annotations

from .finding import Finding, ok, warning
from .system import System


def pidfd(system: System) -> Finding:
    try:
        system.try_pidfd()
    except (OSError, AttributeError) as error:
        return warning(
            f"no: {error}",
            "mq: and sysvmq: cannot be used, because they need a pidfd to notice that a peer has"
            " died; the other transports notice it by the end of the connection",
            "use Linux 5.3, or a sandbox that allows pidfd_open(2)",
        )
    return ok("works", "the death of a peer is noticed at once on every transport")


def peer_pidfd(system: System) -> Finding:
    try:
        system.try_peer_pidfd()
    except OSError as error:
        return warning(
            f"no: {error.strerror or error}",
            "shm: and unix: notice the death of a peer in another container only by the end of its"
            " socket; nothing changes for processes in the same container",
            "use Linux 6.5",
        )
    return ok("works", "shm: and unix: identify peers in other containers, too")


def futex_waitv(system: System) -> Finding:
    try:
        system.try_futexes()
    except (OSError, ImportError) as error:
        return warning(
            f"no: {error}",
            "shm:NAME?wakeup=futex uses eventfd instead",
            "use Linux 5.16, or a sandbox that allows futex_waitv(2)",
        )
    return ok("works", "shm:NAME?wakeup=futex can be used")


def loopback(system: System) -> Finding:
    try:
        system.try_loopback()
    except (OSError, ImportError) as error:
        return warning(
            f"no: {error}",
            "tcp: cannot be used",
            "enable the interface lo, and allow AF_INET and NETLINK_SOCK_DIAG in the sandbox",
        )
    return ok("works", "tcp: can be used, and identifies the user at the other end")

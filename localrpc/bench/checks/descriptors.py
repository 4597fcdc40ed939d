"""Limits of pipes and open files."""

from __future__ import annotations

import resource

from .finding import KIB, MIB, Finding, ok, room, size_text, warning
from .system import System

# The largest size that localrpc requests for a pipe.
_PIPE_BYTES = 256 * KIB
# A ring's two memories are closed once mapped; two eventfds, a socket and a pidfd stay open.
_DESCRIPTORS = 4


def pipes(system: System) -> Finding:
    largest = system.number("/proc/sys/fs/pipe-max-size") or MIB
    pages = system.number("/proc/sys/fs/pipe-user-pages-soft") or 0
    found = f"up to {size_text(largest)} each"
    privileged = system.is_privileged()
    if pages and not privileged:
        found += f", {size_text(pages * resource.getpagesize())} for a user in all"
    if largest < _PIPE_BYTES:
        return warning(
            found,
            f"pipe: gets smaller pipes than the {size_text(_PIPE_BYTES)} it asks for: large"
            " messages take longer",
            "raise fs.pipe-max-size",
        )
    if not pages or privileged:
        return ok(found, "pipe: gets the size it asks for")
    return room(
        found,
        pages * resource.getpagesize() // (2 * _PIPE_BYTES),
        "pipe:",
        "raise fs.pipe-user-pages-soft",
        beyond="further ones have pipes of 8 KiB, and large messages take longer",
    )


def descriptors(system: System) -> Finding:
    limit = system.limit(resource.RLIMIT_NOFILE)
    if limit < 0:
        return ok("unlimited")
    connections = max(0, limit - 64) // _DESCRIPTORS
    return room(
        f"ulimit -n {limit:,}",
        connections,
        "shm:",
        "raise ulimit -n (LimitNOFILE= for a systemd service)",
        few=100,
    )

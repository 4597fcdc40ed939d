"""Memory that two processes can share."""

from __future__ import annotations

from .finding import FEW, MIB, Finding, ok, problem, size_text, warning
from .system import System

# The memory of one connection: two rings.
_RING_BYTES = 2 * (MIB + 4096)


def memfd(system: System) -> Finding:
    try:
        system.try_memfd()
    except OSError as error:
        return problem(
            f"no: {error.strerror or error}",
            "shm: has no shared memory and stays on its Unix socket",
            "allow memfd_create(2) and file seals in the sandbox, and leave memory free",
        )
    return ok("works", f"shm: shares sealed memory, {_RING_BYTES / MIB:.3g} MiB a connection")


def shm_directory(system: System) -> Finding:
    means = "shm:NAME?memory=posix"
    mounts = (system.read("/proc/self/mounts") or "").splitlines()
    kinds = [words[2] for line in mounts if (words := line.split())[1:2] == ["/dev/shm"]]
    if not system.exists("/dev/shm") or not system.writable("/dev/shm"):
        return warning(
            "missing or not writable",
            f"{means} stays on its socket; without ?memory= nothing changes",
            "mount a tmpfs there, mode 1777",
        )
    free = system.free("/dev/shm")
    found = f"{kinds[-1] if kinds else 'not a separate mount'}, {size_text(free)} free"
    if free < FEW * _RING_BYTES:
        return warning(
            found,
            f"room for {free // _RING_BYTES} connections of {means}; without ?memory= nothing"
            " changes",
            "remount it larger (mount -o remount,size=1G /dev/shm, docker --shm-size)",
        )
    if kinds and kinds[-1] != "tmpfs":
        return warning(found, f"{means} is written to a disk", "mount a tmpfs there")
    return ok(found, f"room for {free // _RING_BYTES:,} connections of {means}")

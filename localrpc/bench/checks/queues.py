"""Limits of message queues, POSIX and System V."""

from __future__ import annotations

import resource

from .finding import Finding, room, warning
from .system import System

# A queue has three messages, each with the kernel's overhead.
_QUEUE_BYTES = 3 * (8192 + 96)


def mqueue(system: System) -> Finding:
    try:
        system.try_queue()
    except (OSError, ImportError) as error:
        return warning(
            f"no: {error}",
            "mq: cannot be used",
            "remove unused queues (ls /dev/mqueue), raise ulimit -q, or use a kernel"
            " with CONFIG_POSIX_MQUEUE",
        )
    limit = system.limit(resource.RLIMIT_MSGQUEUE)
    queues = system.number("/proc/sys/fs/mqueue/queues_max") or 256
    settings = [
        f"{name} {system.number(f'/proc/sys/fs/mqueue/{name}')}"
        for name in ("queues_max", "msg_max", "msgsize_max")
    ]
    ulimit = "unlimited" if limit < 0 else f"{limit:,} bytes"
    found = f"{', '.join(settings)}; ulimit -q {ulimit}"
    if limit >= 0:
        queues = min(queues, limit // _QUEUE_BYTES)
    # A server has one for connect requests.
    connections = max(0, queues - 1) // 2
    return room(
        found,
        connections,
        "mq:",
        "raise ulimit -q (LimitMSGQUEUE= for a systemd service) and fs.mqueue.queues_max",
    )


def system_v(system: System) -> Finding:
    table = system.read("/proc/sysvipc/msg")
    most = system.number("/proc/sys/kernel/msgmni")
    if table is None or most is None:
        return warning(
            "no System V queues",
            "sysvmq: and shm:NAME?memory=sysv cannot be used",
            "use a kernel with CONFIG_SYSVIPC",
        )
    used = max(0, len(table.splitlines()) - 1)
    size = system.number("/proc/sys/kernel/msgmnb")
    found = f"{used} of {most:,} queues in use, {size} bytes each"
    return room(
        found,
        max(0, most - used - 1) // 2,
        "sysvmq:",
        "remove unused queues (ipcs -q, ipcrm -q), or raise kernel.msgmni",
    )

"""The processor, what a cgroup leaves of it, and the kernel."""

from __future__ import annotations

import os
import re

from .finding import Finding, ok, warning
from .system import System


def cores(system: System) -> Finding:
    count = system.cores()
    if count < 2:
        return warning(
            "1 core",
            "client and server take turns on it: every call costs two context switches,"
            " and spinning (?spin=, ?wakeup=spin) only delays them",
            "allow this process another core (taskset, the container's cpuset)",
        )
    return ok(f"{count} usable", "client and server can run at the same time")


def cpu_quota(system: System) -> Finding:
    quota = _quota(system)
    if quota is None:
        return ok("none", "no cgroup throttles this process")
    count = system.cores()
    found = f"{quota:.3g} of {count} cores"
    if quota >= count:
        return ok(found)
    return warning(
        found,
        "a process that has used up its share is stopped for up to 100 ms, which affects the"
        " slowest calls of every transport; spinning uses up the share sooner",
        "raise the quota (docker --cpus, systemd CPUQuota=, a pod's limits.cpu), or use ?spin=off",
    )


def _quota(system: System) -> float | None:
    """Return the number of cores that the narrowest cgroup above this process allows."""
    quotas = []
    for line in (system.read("/proc/self/cgroup") or "").splitlines():
        _, controllers, group = line.split(":", 2)
        version_1 = "cpu" in controllers.split(",")
        if controllers and not version_1:
            continue
        root = f"/sys/fs/cgroup{f'/{controllers}' if version_1 else ''}"
        while True:
            if version_1:
                quota = system.number(f"{root}{group}/cpu.cfs_quota_us")
                period = system.number(f"{root}{group}/cpu.cfs_period_us")
            else:
                words = (system.read(f"{root}{group}/cpu.max") or "max").split()
                quota = int(words[0]) if words[0].isdigit() else None
                period = int(words[1]) if len(words) > 1 else None
            if quota and period and quota > 0:
                quotas.append(quota / period)
            if group in ("", "/"):
                break
            group = os.path.dirname(group)
    return min(quotas, default=None)


def virtualization(system: System) -> Finding:
    text = system.read("/proc/cpuinfo") or ""
    guest = re.search(r"^flags\s*:.*\bhypervisor\b", text, re.M)
    if not guest and not system.exists("/sys/hypervisor/type"):
        return ok("none found", "waking a sleeping core needs no exit to a hypervisor")
    kind = system.read("/sys/class/dmi/id/product_name") or system.read("/sys/hypervisor/type")
    return ok(
        f"a virtual machine{f' ({kind})' if kind else ''}",
        "waking a sleeping core takes longer than on bare metal, so spinning before a"
        " sleep saves more; time that the host gives to other machines affects the slowest calls",
    )


def kernel(system: System) -> Finding:
    release = system.release()
    version = tuple(map(int, re.findall(r"\d+", release)[:2]))
    if version < (5, 3):
        return warning(
            release, "localrpc is tested on newer kernels; see pidfd below", "use Linux 5.4"
        )
    return ok(f"Linux {release}")

"""What this machine allows, what that means for each transport, and how to fix it.

A check is a function of a System that returns one Finding; CHECKS has them all.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import re
import resource
import shutil
import socket
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any

KIB = 1024
MIB = 1024 * KIB

# What one connection takes: two queues of three messages, with what the kernel
# charges beside the bytes; two pipes as large as we grow them; two rings.
_QUEUE_BYTES = 3 * (8192 + 96)
_PIPE_BYTES = 256 * KIB
_RING_BYTES = 2 * (MIB + 4096)
# A ring's two memories are closed once mapped: two bells, a socket, a pidfd are left.
_DESCRIPTORS = 4
_FEW = 8
"""Connections at once: a limit that allows no more is worth a warning."""
# linux/socket.h since 6.5; Python has no name for it.
_SO_PEERPIDFD = 77


class Verdict(str, Enum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """`found` is what the machine has, `meaning` what that does to which transport."""

    verdict: Verdict
    found: str
    meaning: str = ""
    fix: str = ""
    name: str = ""


def ok(found: str, meaning: str = "") -> Finding:
    return Finding(Verdict.OK, found, meaning)


def warning(found: str, meaning: str, fix: str = "") -> Finding:
    return Finding(Verdict.WARNING, found, meaning, fix)


def problem(found: str, meaning: str, fix: str = "") -> Finding:
    return Finding(Verdict.PROBLEM, found, meaning, fix)


class System:
    """What the checks ask of a machine. `try_...` raises OSError where it is not possible."""

    def read(self, path: str) -> str | None:
        """A file's text; None if it is not there or not for us."""
        try:
            return Path(path).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return None

    def number(self, path: str) -> int | None:
        text = self.read(path)
        return int(text) if text is not None and re.fullmatch(r"-?[0-9]+", text) else None

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def cores(self) -> int:
        return len(os.sched_getaffinity(0))

    def release(self) -> str:
        return platform.release()

    def python(self) -> tuple[str, tuple[int, ...]]:
        return platform.python_implementation(), sys.version_info[:3]

    def version(self, package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    def requirements(self) -> list[str]:
        try:
            return metadata.requires("localrpc") or []
        except metadata.PackageNotFoundError:
            return []

    def compiler(self) -> str | None:
        command = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
        return shutil.which(str(command).split()[0]) or shutil.which("cc")

    def headers(self) -> str:
        return str(Path(sysconfig.get_paths()["include"]) / "Python.h")

    def limit(self, which: int) -> int:
        """The soft limit; -1 is none."""
        return resource.getrlimit(which)[0]

    def is_privileged(self) -> bool:
        """Whether the limits per user are not for us: CAP_SYS_RESOURCE (24)."""
        found = re.search(r"^CapEff:\s*([0-9a-f]+)", self.read("/proc/self/status") or "", re.M)
        return bool(found and int(found[1], 16) >> 24 & 1)

    def free(self, path: str) -> int:
        """Bytes that this user may still write below `path`."""
        facts = os.statvfs(path)
        return facts.f_bavail * facts.f_frsize

    def writable(self, path: str) -> bool:
        return os.access(path, os.W_OK | os.X_OK)

    def try_core(self) -> None:
        """Raises ImportError."""
        import localrpc._core  # noqa: F401

    def try_pidfd(self) -> None:
        os.close(os.pidfd_open(os.getpid()))

    def try_peer_pidfd(self) -> None:
        with contextlib.ExitStack() as stack:
            ours, _ = map(stack.enter_context, socket.socketpair())
            os.close(ours.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD))

    def try_futexes(self) -> None:
        from localrpc._core import links

        if not links.futexes_work():
            raise OSError("futex_waitv(2) is not there or not allowed")

    def try_memfd(self) -> None:
        fd = os.memfd_create("localrpc-doctor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.posix_fallocate(fd, 0, 4096)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        finally:
            os.close(fd)

    def try_queue(self) -> None:
        import posix_ipc

        name = f"/localrpc-{os.geteuid()}-doctor-{os.getpid()}"
        try:
            queue = posix_ipc.MessageQueue(name, posix_ipc.O_CREX, max_messages=3)
        except posix_ipc.Error as error:
            raise OSError(str(error)) from None
        queue.close()
        queue.unlink()

    def try_loopback(self) -> None:
        """Also whether the kernel says whose a connection is."""
        from localrpc.transports.sockdiag import holder_of_other_end

        with contextlib.ExitStack() as stack:
            door = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            ours = stack.enter_context(socket.create_connection(door.getsockname(), timeout=2))
            stack.enter_context(door.accept()[0])
            if holder_of_other_end(ours) is None:
                raise OSError("sock_diag(7) does not know who has a connection's other end")

    def runtime_directory(self) -> str:
        """Raises FileNotFoundError, or OSError with a text that names the fix."""
        from localrpc.transports import names

        return names.check_runtime_directory(create=False)

    def runtime_path(self) -> str:
        from localrpc.transports import names

        return names.runtime_directory()


Check = Callable[[System], Finding]


# ---- The processor, the kernel, Python ----


def cores(system: System) -> Finding:
    count = system.cores()
    if count < 2:
        return warning(
            "1 core",
            "client and server take turns on it: every call waits for two switches of process,"
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
        "a process that has used its share is stopped for up to 100 ms, which shows in the"
        " slowest calls of every transport; spinning uses the share up sooner",
        "raise the quota (docker --cpus, systemd CPUQuota=, a pod's limits.cpu), or say ?spin=off",
    )


def _quota(system: System) -> float | None:
    """Cores that the narrowest cgroup above this process allows, of either version."""
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
        return ok("none seen", "waking a sleeping core costs no exit to a hypervisor")
    kind = system.read("/sys/class/dmi/id/product_name") or system.read("/sys/hypervisor/type")
    return ok(
        f"a virtual machine{f' ({kind})' if kind else ''}",
        "waking a sleeping core takes longer than on bare metal, so that spinning before a"
        " sleep saves more; time that the host gives to others shows in the slowest calls",
    )


def kernel(system: System) -> Finding:
    release = system.release()
    version = tuple(map(int, re.findall(r"\d+", release)[:2]))
    if version < (5, 3):
        return warning(
            release, "what this localrpc is tested on is newer; see pidfd below", "use Linux 5.4"
        )
    return ok(f"Linux {release}")


def python(system: System) -> Finding:
    name, version = system.python()
    found = f"{name} {'.'.join(map(str, version))}"
    if name != "CPython" or not (3, 10) <= version[:2] <= (3, 13):
        return warning(found, "localrpc is made for CPython 3.10 to 3.13", "use one of these")
    return ok(found)


def core(system: System) -> Finding:
    try:
        system.try_core()
    except ImportError as error:
        return problem("does not load", "no transport works", str(error))
    return ok("loads")


def compiler(system: System) -> Finding:
    command, headers = system.compiler(), system.headers()
    missing = [
        what
        for what, there in (("a C compiler", command), (headers, system.exists(headers)))
        if not there
    ]
    if not missing:
        return ok(f"{command}, and Python's headers")
    found = f"without {' and '.join(missing)}"
    if core(system).verdict is Verdict.OK:
        return ok(found, "needed only to build localrpc, which is there already")
    return problem(
        found,
        "localrpc's core cannot be built here",
        "apt-get install gcc python3-dev, dnf install gcc python3-devel, or your system's like",
    )


def packages(system: System) -> Finding:
    found, bad = [], []
    for requirement in system.requirements():
        match = re.fullmatch(r"([\w.-]+)\s*>=\s*([\d.]+)", requirement)
        if match is None:  # one of an extra
            continue
        name, least = match.groups()
        version = system.version(name)
        found.append(f"{name} {version or 'missing'}")
        if version is None or _order(version) < _order(least):
            bad.append(f"'{requirement}'")
    if bad:
        return problem(
            ", ".join(found),
            "localrpc cannot be imported, or fails",
            f"pip install {' '.join(bad)}",
        )
    return ok(", ".join(found) or "localrpc is not installed: run from the source tree")


def _order(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


# ---- What the kernel offers ----


def pidfd(system: System) -> Finding:
    try:
        system.try_pidfd()
    except (OSError, AttributeError) as error:
        return warning(
            f"no: {error}",
            "mq: and sysvmq: cannot be used, since nothing else says that a peer has died; the"
            " other transports see it by the end of the connection",
            "use Linux 5.3, or a sandbox that allows pidfd_open(2)",
        )
    return ok("works", "the death of a peer is seen at once on every transport")


def peer_pidfd(system: System) -> Finding:
    try:
        system.try_peer_pidfd()
    except OSError as error:
        return warning(
            f"no: {error.strerror or error}",
            "shm: and unix: see the death of a peer in another container by the end of its"
            " socket alone; between processes that see each other nothing changes",
            "use Linux 6.5",
        )
    return ok("works", "shm: and unix: know their peer across containers")


def futex_waitv(system: System) -> Finding:
    try:
        system.try_futexes()
    except (OSError, ImportError) as error:
        return warning(
            f"no: {error}",
            "shm:NAME?wakeup=futex wakes by eventfd instead",
            "use Linux 5.16, or a sandbox that allows futex_waitv(2)",
        )
    return ok("works", "shm:NAME?wakeup=futex can be used")


def memfd(system: System) -> Finding:
    try:
        system.try_memfd()
    except OSError as error:
        return problem(
            f"no: {error.strerror or error}",
            "shm: has no memory to share and stays on its Unix socket",
            "allow memfd_create(2) and file seals in the sandbox, and leave memory free",
        )
    return ok("works", f"shm: shares sealed memory, {_RING_BYTES / MIB:.3g} MiB a connection")


def shm_directory(system: System) -> Finding:
    means = "shm:NAME?memory=posix"
    mounts = (system.read("/proc/self/mounts") or "").splitlines()
    kinds = [words[2] for line in mounts if (words := line.split())[1:2] == ["/dev/shm"]]
    if not system.exists("/dev/shm") or not system.writable("/dev/shm"):
        return warning(
            "not there, or not ours to write",
            f"{means} stays on its socket; without ?memory= nothing changes",
            "mount a tmpfs there, mode 1777",
        )
    free = system.free("/dev/shm")
    found = f"{kinds[-1] if kinds else 'no mount of its own'}, {_size(free)} free"
    if free < _FEW * _RING_BYTES:
        return warning(
            found,
            f"room for {free // _RING_BYTES} connections of {means}; without ?memory= nothing"
            " changes",
            "remount it larger (mount -o remount,size=1G /dev/shm, docker --shm-size)",
        )
    if kinds and kinds[-1] != "tmpfs":
        return warning(found, f"{means} is written to a disk", "mount a tmpfs there")
    return ok(found, f"room for {free // _RING_BYTES:,} connections of {means}")


def mqueue(system: System) -> Finding:
    try:
        system.try_queue()
    except (OSError, ImportError) as error:
        return warning(
            f"no: {error}",
            "mq: cannot be used",
            "remove queues that nobody uses (ls /dev/mqueue), raise ulimit -q, or use a kernel"
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
    # A server has one to knock at.
    connections = max(0, queues - 1) // 2
    return _room(
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
    return _room(
        found,
        max(0, most - used - 1) // 2,
        "sysvmq:",
        "remove queues that nobody uses (ipcs -q, ipcrm -q), or raise kernel.msgmni",
    )


def pipes(system: System) -> Finding:
    largest = system.number("/proc/sys/fs/pipe-max-size") or MIB
    pages = system.number("/proc/sys/fs/pipe-user-pages-soft") or 0
    found = f"up to {_size(largest)} each"
    privileged = system.is_privileged()
    if pages and not privileged:
        found += f", {_size(pages * resource.getpagesize())} for a user in all"
    if largest < _PIPE_BYTES:
        return warning(
            found,
            f"pipe: gets smaller pipes than the {_size(_PIPE_BYTES)} it asks for: large messages"
            " take longer",
            "raise fs.pipe-max-size",
        )
    if not pages or privileged:
        return ok(found, "pipe: gets all the room it asks for")
    return _room(
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
    return _room(
        f"ulimit -n {limit:,}",
        connections,
        "shm:",
        "raise ulimit -n (LimitNOFILE= for a systemd service)",
        few=100,
    )


def loopback(system: System) -> Finding:
    try:
        system.try_loopback()
    except (OSError, ImportError) as error:
        return warning(
            f"no: {error}",
            "tcp: cannot be used",
            "bring the interface lo up, and allow the sandbox AF_INET and NETLINK_SOCK_DIAG",
        )
    return ok("works", "tcp: can be used, and knows which user is at the other end")


def runtime_directory(system: System) -> Finding:
    try:
        path = system.runtime_directory()
    except FileNotFoundError:
        path = system.runtime_path()
        parent = os.path.dirname(path.rstrip("/")) or "/"
        if not system.writable(parent):
            return problem(
                f"{path} is not there, and {parent} cannot be written",
                "shm:NAME, mq: and sysvmq: have nowhere to put their names",
                "set LOCALRPC_RUNTIME_DIR to a directory that this user can make",
            )
        return ok(f"{path}, which the first server makes")
    except (OSError, ImportError) as error:
        reason, _, fix = str(getattr(error, "strerror", None) or error).partition("; ")
        return problem(reason, "shm:NAME, mq: and sysvmq: cannot be used", fix)
    if not system.writable(path):
        return problem(
            f"{path} cannot be written",
            "shm:NAME, mq: and sysvmq: have nowhere to put their names",
            f"chmod 700 {path}, or set LOCALRPC_RUNTIME_DIR to another directory",
        )
    room = 107 - len(os.fsencode(path)) - len("/.shm")
    if room < 20:
        return warning(
            path,
            f"shm:NAME has room for {max(0, room)} bytes of name: a socket's path has 107",
            "set LOCALRPC_RUNTIME_DIR to a shorter one",
        )
    return ok(f"{path}, this user's alone")


def _room(
    found: str,
    connections: int,
    who: str,
    fix: str,
    *,
    beyond: str = "",
    few: int = _FEW,
) -> Finding:
    meaning = f"{who} has room for about {connections:,} connections"
    if beyond:
        meaning += f"; {beyond}"
    if connections < few:
        return warning(found, meaning, fix)
    return ok(found, meaning)


def _size(count: int) -> str:
    for unit, size in (("GiB", 1024 * MIB), ("MiB", MIB), ("KiB", KIB)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"


CHECKS: dict[str, Check] = {
    "cores": cores,
    "CPU quota": cpu_quota,
    "virtualization": virtualization,
    "kernel": kernel,
    "Python": python,
    "packages": packages,
    "the core": core,
    "compiler": compiler,
    "runtime directory": runtime_directory,
    "descriptors": descriptors,
    "pidfd": pidfd,
    "SO_PEERPIDFD": peer_pidfd,
    "futex_waitv": futex_waitv,
    "sealed memory": memfd,
    "/dev/shm": shm_directory,
    "pipes": pipes,
    "POSIX queues": mqueue,
    "System V queues": system_v,
    "loopback": loopback,
}


def examine(system: System | None = None) -> list[Finding]:
    """Every check's finding, with its name; what a check raises is a warning that says so."""
    system = system or System()
    findings = []
    for name, check in CHECKS.items():
        try:
            finding = check(system)
        except Exception as error:
            finding = warning(
                "could not be told", f"{type(error).__name__}: {error}", "please report this"
            )
        findings.append(Finding(**{**vars(finding), "name": name}))
    return findings


def as_json(findings: list[Finding]) -> list[dict[str, Any]]:
    return [{**asdict(finding), "verdict": finding.verdict.value} for finding in findings]

"""What the machine did during a slice, and which processes used it."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

# The resolution of the kernel's idle counters: one tick per core and reading.
_TICK = 1 / os.sysconf("SC_CLK_TCK")
_IDLING = 2e-6
"""Seconds for a core to become idle and to wake up, at most: long on virtual machines."""


def process_cpu(pid: int) -> float:
    """Return the processor time of a process in seconds, including its ended threads.

    The clock number is that of clock_getcpuclockid(3), which Python lacks.
    """
    return time.clock_gettime((~pid << 3) | 2)


def children_cpu(pid: int) -> float:
    """Return the processor time, in seconds, of a process's children that were waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def process_switches(pid: int | None) -> int | None:
    """Return the context switches of a process's living threads; None if not known."""
    if pid is None:
        return None
    count = 0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found = re.findall(r"ctxt_switches:\s+(\d+)", (task / "status").read_text())
                count += sum(map(int, found))
    except OSError:
        return None
    return count


def process_memory(pid: int | None) -> int | None:
    """Return a process's private memory in bytes, plus its part of shared memory except files.

    This is PSS, so that a ring counts once for both of its sides; program code does not count,
    because every peer here has Python's. None if not known.
    """
    if pid is None:
        return None
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    return sum(int(kib) * 1024 for kib in re.findall(r"Pss_(?:Anon|Shmem):\s+(\d+)", text))


class SyscallCounter:
    """Counts the system calls of some processes while it is entered, by perf-stat(1).

    `count` is None if the kernel does not let this user count them.
    """

    def __init__(self, pids: Iterable[int]) -> None:
        self._command = ["perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter"]
        # perf counts while its command lives, and starts before it does.
        self._command += ["-p", ",".join(map(str, pids)), "--", "sh", "-c", "echo; exec cat"]
        self.count: int | None = None

    def __enter__(self) -> SyscallCounter:
        self._perf = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._perf.stdout is not None
        self._perf.stdout.readline()
        return self

    def __exit__(self, *_: object) -> None:
        said = self._perf.communicate()
        found = re.search(r"^(\d+),", said[1], re.M)
        self.count = int(found[1]) if found else None


def why_no_syscalls() -> str | None:
    """Return why system calls cannot be counted, and what to do; None if they can."""
    if shutil.which("perf") is None:
        return "counting system calls needs perf: apt-get install linux-perf, or the like"
    with SyscallCounter([os.getpid()]) as counter:
        os.stat("/")
    if counter.count is None:
        return (
            "perf may not count system calls here: be root, or sysctl kernel.perf_event_paranoid=-1"
        )
    return None


def _idle() -> float:
    """Return the seconds that all cores together have been idle.

    The kernel measures idle time; the rest of /proc/stat is sampled at the tick, which charges
    two processes that alternate quickly at random.
    """
    with open("/proc/stat", encoding="ascii") as stat:
        fields = stat.readline().split()
    return (int(fields[4]) + int(fields[5])) * _TICK


@dataclass(frozen=True)
class Usage:
    """The use of the machine in `seconds`; `own` and `others` are seconds of processor time."""

    seconds: float
    cores: int
    own: float
    others: float

    @property
    def share(self) -> float:
        """The part of the whole machine that other processes used, 0 to 1."""
        return self.others / (self.seconds * self.cores)

    def disturbed(self, limit: float = 0.03) -> bool:
        """True if others used more of the machine than `limit` and the clocks' own error."""
        return self.others > limit * self.seconds * self.cores + self.cores * _TICK


class Meter:
    """Measures the machine's use from now on; `pids`, called each time, returns our processes."""

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids
        self._cores = os.cpu_count() or 1
        self._start = self._read()

    def _read(self) -> tuple[float, float, dict[int, float], dict[int, float]]:
        own = {os.getpid(): time.process_time()}
        own |= _processor_times(self._pids(), with_children=True)
        others = _processor_times(
            int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) not in own
        )
        return time.monotonic(), _idle(), own, others

    def usage(self, switches: int = 0) -> Usage:
        """Return the use since it was created; ours have switched `switches` times.

        Time that the cores were busy, but not with our processes, is others', even if these have
        ended meanwhile or are not visible. Becoming idle and waking up takes a core's time, too,
        and is charged to no process.
        """
        then, idle, own, others = self._start
        now, idle_now, own_now, others_now = self._read()
        seconds = now - then
        ours = _difference(own, own_now)
        busy = seconds * self._cores - (idle_now - idle)
        unseen = busy - ours - switches * _IDLING
        return Usage(seconds, self._cores, ours, max(_difference(others, others_now), unseen, 0.0))


def _processor_times(pids: Iterable[int], *, with_children: bool = False) -> dict[int, float]:
    """Return the total of the processes that exist."""
    times = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            times[pid] = process_cpu(pid) + (children_cpu(pid) if with_children else 0)
    return times


def _difference(then: dict[int, float], now: dict[int, float]) -> float:
    return sum(used - then.get(pid, 0.0) for pid, used in now.items())


def describe() -> dict[str, str]:
    """Return the facts about this machine without which a figure means nothing."""
    facts = {
        "processor": _processor(),
        "cores": f"{len(os.sched_getaffinity(0))} usable of {os.cpu_count()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    for package in ("localrpc", "grpcio", "protobuf"):
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = "not installed (run from the source tree)"
    return facts


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()

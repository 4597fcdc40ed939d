"""What the kernel says a process has used."""

from __future__ import annotations

import re
from pathlib import Path

from tests.peers.census import RING


def _status(path: Path, key: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+)", path.read_text(), re.MULTILINE)
    assert found, f"{path} has no {key}"
    return int(found[1])


def context_switches(pid: int) -> int:
    """Of all its threads so far, wanted or not."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += _status(task / "status", "voluntary_ctxt_switches")
        total += _status(task / "status", "nonvoluntary_ctxt_switches")
    return total


def anonymous_memory(pid: int) -> int:
    """Bytes of private memory: RssAnon."""
    return _status(Path(f"/proc/{pid}/status"), "RssAnon") * 1024


def ring_memory(pid: int) -> int:
    """Bytes of shared memory behind the rings it has mapped, each counted once."""
    sizes: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, _, offset, _, inode, *name = line.split(maxsplit=5)
        if not (name and re.search(RING, name[0])):
            continue
        begin, end = (int(number, 16) for number in span.split("-"))
        sizes[inode] = max(sizes.get(inode, 0), int(offset, 16) + end - begin)
    return sum(sizes.values())

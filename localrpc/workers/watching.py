"""What a supervisor watches: the files of the application, and the memory of its workers."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any

from localrpc.observe import process
from localrpc.workers.threads import start_thread


class Changes:
    """Readable when a .py file below a folder has changed."""

    def __init__(self, folder: str) -> None:
        """Raises ModuleNotFoundError without watchfiles."""
        from watchfiles import PythonFilter, watch

        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._end = threading.Event()
        changes: Any = watch(
            folder, watch_filter=PythonFilter(), stop_event=self._end, raise_interrupt=False
        )
        self._thread = start_thread(lambda: self._run(folder, changes), "localrpc-changes")

    def _run(self, folder: str, changes: Any) -> None:
        for several in changes:
            names = sorted({os.path.relpath(path, folder) for _, path in several})
            self._writer.sendall("\0".join(["", *names]).encode())

    def fileno(self) -> int:
        return self._reader.fileno()

    def take(self) -> list[str]:
        """Return the files that have changed since the last time, relative to the folder."""
        text = self._reader.recv(1 << 16).decode(errors="replace")
        return sorted(set(filter(None, text.split("\0"))))

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        self._reader.close()
        self._writer.close()


def own_memory(pid: int) -> int:
    """Return the bytes of memory that a process shares with no other, without rings; 0 if it has
    ended.

    RssAnon in proc_pid_status(5).
    """
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def calls_of(pid: int) -> int:
    """Return how many calls the servers of a process have begun; 0 if it has ended."""
    found = process(pid)
    if found is None:
        return 0
    return sum(each.counts.begun for each in found.page.endpoints if each.role == "server")

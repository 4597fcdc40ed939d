"""The log of a supervisor and its workers, on stderr: a line, or a JSON object, for each record."""

from __future__ import annotations

import collections
import json
import logging
import os
import select
import sys
import time

from localrpc import _locks
from localrpc.workers.threads import start_thread

LEVELS = ("debug", "info", "warning", "error")
_MOST_LINES = 1000
"""That wait for a reader of stderr."""
_FLUSH = 1.0
"""Seconds that flush() waits for a reader."""


def set_up(level: str, *, as_json: bool, may_block: bool) -> None:
    """Have the records of all loggers written to stderr, from `level` on.

    A reader of stderr that has stopped blocks the threads that log, as in any program, or, with
    `may_block` false, none; lines that it has not read may then be lost with the process.
    """
    handler: logging.Handler
    if sys.stderr is None:  # closed when the program was started
        handler = logging.NullHandler()
    elif may_block:
        handler = logging.StreamHandler(sys.stderr)
    else:
        handler = ThreadHandler(sys.stderr.fileno())
    handler.setFormatter(_Json() if as_json else logging.Formatter(_LINE, "%H:%M:%S"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level.upper())


class ThreadHandler(logging.Handler):
    """Writes to a descriptor, on a thread of its own.

    Up to 1,000 lines wait while it cannot be written. More are dropped, until all of those have
    been written, and counted in a line.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._changed = _locks.Condition()
        self._lines: collections.deque[bytes] = collections.deque()
        self._dropped = 0
        self._writing = False
        self._began = 0.0
        self._closed = False
        start_thread(self._run, "localrpc-log")

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._line(record)
        except Exception:
            self.handleError(record)
            return
        with self._changed:
            if self._dropped or len(self._lines) >= _MOST_LINES:
                self._dropped += 1
            else:
                self._lines.append(line)
                self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all is written; a second at most, which began with the present line."""
        with self._changed:
            began = self._began if self._writing else time.monotonic()
            left = max(0.0, began + _FLUSH - time.monotonic())
            self._changed.wait_for(lambda: not self._lines and not self._writing, left)

    def close(self) -> None:
        """End the thread once it has written what waits."""
        super().close()
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(errors="backslashreplace")

    def _run(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._lines or self._dropped or self._closed)
                if not self._lines and not self._dropped:
                    return
                line = self._lines.popleft() if self._lines else self._note()
                self._writing = True
                self._began = time.monotonic()
            try:
                self._write(line)
            except OSError:
                pass  # no process reads it any longer, or its disk is full

    def _note(self) -> bytes:
        dropped, self._dropped = self._dropped, 0
        text = f"stderr was not read for some time: {dropped} lines are lost here"
        fields = {"name": "localrpc.serve", "levelname": "WARNING", "msg": text}
        return self._line(logging.makeLogRecord(fields))

    def _write(self, line: bytes) -> None:
        while line:
            try:
                line = line[os.write(self._fd, line) :]
            except BlockingIOError:  # another process has set the pipe or terminal to that
                poller = select.poll()
                poller.register(self._fd, select.POLLOUT)
                poller.poll()


_LINE = "%(asctime)s %(levelname)s %(process)d %(message)s"


class _Json(logging.Formatter):
    """Keys: time (RFC 3339, UTC), level, logger, pid, message, and exception if there is one."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        moment = self.formatTime(record, "%Y-%m-%dT%H:%M:%S")
        fields = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)

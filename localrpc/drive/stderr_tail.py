"""A child's standard error: copied to this process's, with its last lines kept."""

from __future__ import annotations

import os
import select
import signal
import threading

from localrpc import _locks
from localrpc.transports.forks import forget_after_fork

LINES = 20
BYTES = 4096
"""What is kept, at most."""
_CHUNK = 1 << 16
_PIPE = 1 << 20
"""Bytes that a pipe may hold."""
_PATIENCE = 1.0
"""Seconds to wait for the last copies: our own standard error may be a pipe that is full."""


class StderrTail:
    """Copies on a thread of its own until no process can write to the pipe any longer.

    It reads no more than it has copied, so a child that writes fast waits as it would if it
    had our standard error itself. Thread-safe.
    """

    def __init__(self, source: int, out: int) -> None:
        """Take over both descriptors, the reading end of the pipe, and where to copy to, even if
        this fails. Raises OSError, and RuntimeError if no thread can start."""
        os.set_blocking(source, False)
        self._source = source
        self._out = out
        self._bell = -1
        self._lock = _locks.Lock()
        self._kept = b""
        self._cut = False
        self._copied = threading.Event()
        forget_after_fork(self)
        try:
            self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            threading.Thread(target=self._run, name="localrpc-stderr", daemon=True).start()
        except BaseException:
            self.forget()
            raise

    def catch_up(self) -> None:
        """Wait until all has been copied that the child has written. Called once, after its end."""
        os.eventfd_write(self._bell, 1)
        self._copied.wait(_PATIENCE)

    def lines(self) -> str:
        """Return the last lines, without the end of the last one."""
        with self._lock:
            kept, cut = self._kept, self._cut
        lines = kept.decode("utf-8", "replace").splitlines()
        if cut and len(lines) > 1:
            del lines[0]  # its beginning is missing
        return "\n".join(lines[-LINES:])

    def forget(self) -> None:
        """Close in a forked child, which does not have the thread."""
        for fd in (self._source, self._out, self._bell):
            if fd >= 0:
                os.close(fd)
        self._source = self._out = self._bell = -1

    def _run(self) -> None:
        # This process must not end because no process reads its standard error any longer.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
        poller = select.poll()
        poller.register(self._bell, select.POLLIN)
        poller.register(self._source, select.POLLIN)
        while self._source >= 0 or self._bell >= 0:
            if any(fd == self._bell for fd, _ in poller.poll()):
                poller.unregister(self._bell)
                # A child of the child may go on to write: take what a pipe can hold.
                left = _PIPE
                while left > 0 and (size := self._copy(poller)):
                    left -= size
                self._copied.set()
                bell, self._bell = self._bell, -1
                os.close(bell)
            else:
                self._copy(poller)
        out, self._out = self._out, -1
        os.close(out)

    def _copy(self, poller: select.poll) -> int:
        """Copy what is there. Return its size, 0 if nothing is."""
        if self._source < 0:
            return 0
        try:
            data = os.read(self._source, _CHUNK)
        except BlockingIOError:
            return 0
        if not data:
            poller.unregister(self._source)
            source, self._source = self._source, -1
            os.close(source)
            return 0
        with self._lock:
            kept = self._kept + data
            self._cut = self._cut or len(kept) > BYTES
            self._kept = kept[-BYTES:]
        self._write(data)
        return len(data)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._out, view) :]
            except BlockingIOError:  # another process has made it non-blocking
                poller = select.poll()
                poller.register(self._out, select.POLLOUT)
                poller.poll()
            except OSError:
                return  # no process reads it any longer, or its disk is full

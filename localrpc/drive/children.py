"""Child processes with a pipe to this one: started or forked, waited for, and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import NoReturn

from localrpc import _locks
from localrpc.drive.core import patience
from localrpc.drive.greenlets import refuse_greenlets
from localrpc.options import Options
from localrpc.transports import inherited, parse_target

TARGET = parse_target("pipe:")
"""Where the server of a child listens."""
_GRACE = 5.0
"""Seconds that a child has to end by itself once its channel is closed, before SIGTERM; then
seconds until SIGKILL."""


class Child:
    """A process and the thread that waits for it, so that it never stays a zombie."""

    def __init__(self, pid: int, reap: Callable[[], int | None]) -> None:
        self.pid = pid
        self._reap = reap
        self._status: int | None = None
        self._over = threading.Event()
        self._lock = _locks.Lock()  # held to signal the child, and to forget its pid
        self._owner = os.getpid()

    def watch(self, dialer: inherited.ToChild) -> None:
        def run() -> None:
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            with self._lock:
                self._status = self._reap()
                self._over.set()
            dialer.child_ended(self.ending())

        threading.Thread(target=run, name="localrpc-child", daemon=True).start()

    def ending(self) -> str:
        status = self._status
        if status is None:
            return "another part of this program has waited for it"
        if status < 0:
            return f"it was killed by signal {-status}"
        return f"it ended with exit status {status}"

    def wait(self, timeout: float | None) -> int:
        until = None if timeout is None else monotonic() + timeout
        while True:
            left = None if until is None else max(until - monotonic(), 0)
            if self._over.wait(patience(left)):
                return 0 if self._status is None else self._status
            if left is not None and patience(left) == left:
                raise TimeoutError(
                    f"the child process {self.pid} is still running after {timeout} s"
                )

    def end(self) -> None:
        if os.getpid() != self._owner:
            return  # in a forked child: the process is the parent's child
        for signo in (signal.SIGTERM, signal.SIGKILL):
            try:
                self.wait(_GRACE)
                return
            except TimeoutError:
                with self._lock:
                    if not self._over.is_set():
                        os.kill(self.pid, signo)
        self.wait(None)


def spawn(
    argv: Sequence[str], options: Options, env: Mapping[str, str] | None, cwd: str | None
) -> tuple[inherited.ToChild, Child]:
    """Start a program. Return the dialer of its channel, and the process."""
    refuse_greenlets()
    with inherited.making:
        pair = inherited.make_pair()
        environment = dict(os.environ if env is None else env)
        environment[inherited.ENVIRONMENT] = ",".join(map(str, pair.child))
        try:
            process = subprocess.Popen(argv, pass_fds=pair.child, env=environment, cwd=cwd)
        except BaseException:
            pair.close()
            raise
        for fd in pair.child:
            os.close(fd)
        dialer = inherited.ToChild(pair.parent, process.pid, TARGET, options)
    child = Child(process.pid, process.wait)
    child.watch(dialer)
    return dialer, child


def fork(serve: Callable[[], object], options: Options) -> tuple[inherited.ToChild, Child]:
    """Fork, and run `serve` in the child until it returns, which ends the child.

    Return, in the parent, the dialer of the channel to it, and the process.
    """
    refuse_greenlets()
    sys.stdout.flush()
    sys.stderr.flush()
    with inherited.making:
        pair = inherited.make_pair()
        try:
            pid = os.fork()
        except BaseException:
            pair.close()
            raise
        if pid:
            for fd in pair.child:
                os.close(fd)
            dialer = inherited.ToChild(pair.parent, pid, TARGET, options)
    if pid == 0:
        for fd in pair.parent:
            os.close(fd)
        inherited.leave_to_this_process(pair.child)
        _be_child(serve)

    def reap() -> int | None:
        try:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except ChildProcessError:
            return None

    child = Child(pid, reap)
    child.watch(dialer)
    return dialer, child


def _be_child(serve: Callable[[], object]) -> NoReturn:
    """Serve until the parent is gone; never return."""
    status = 1
    try:
        # The parent's handlers do not apply to the child, which ends with its pipe.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        serve()
        status = 0
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        # Not sys.exit(): the exit handlers are the parent's.
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                pass
        os._exit(status)

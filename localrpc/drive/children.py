"""Child processes connected to this one: started or forked, waited for, and ended."""

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
from typing import NamedTuple, NoReturn

from localrpc import _locks
from localrpc.address import Address
from localrpc.drive.core import LONGEST, patience
from localrpc.drive.greenlets import refuse_greenlets
from localrpc.drive.stderr_tail import StderrTail
from localrpc.options import Options
from localrpc.transports import inherited, parse_target, rings, to_child
from localrpc.transports.to_child import Preparation, ToChild

TARGET = parse_target("pipe:")
"""Where the server of a child listens, whatever connects it."""
_STDERR = ("inherit", "tail")


class Manner(NamedTuple):
    """How a child is connected, and how it ends."""

    address: Address
    grace: float
    """Seconds that it has to end by itself once its channel is closed, before SIGTERM; then
    seconds until SIGKILL."""
    tail: bool
    """True if its standard error is copied, and its last lines kept."""


def manner(target: str, grace: float, stderr: str) -> Manner:
    """Check what a caller asks for. Raises AddressError, ValueError, TypeError."""
    address = inherited.parse_child_target(target)
    if address.scheme == "shm":
        rings.claim_wakeup(address)
    if not isinstance(grace, (int, float)):
        raise TypeError(f"grace is a number of seconds, not {type(grace).__name__}")
    if not grace >= 0:
        raise ValueError(f"grace is a number of seconds, 0 or more, not {grace}")
    if stderr not in _STDERR:
        raise ValueError(f"stderr is 'inherit' or 'tail', not {stderr!r}")
    return Manner(address, min(grace, LONGEST), stderr == "tail")


class Child:
    """A process and the thread that waits for it, so that it never stays a zombie."""

    def __init__(
        self, pid: int, reap: Callable[[], int | None], grace: float, tail: StderrTail | None
    ) -> None:
        self.pid = pid
        self._reap = reap
        self._grace = grace
        self._tail = tail
        self._status: int | None = None
        self._over = threading.Event()
        self._lock = _locks.Lock()  # held to signal the child, and to forget its pid
        self._owner = os.getpid()

    def watch(self, dialer: ToChild) -> None:
        """Raises RuntimeError if no thread can start."""

        def run() -> None:
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            if self._tail is not None:
                self._tail.catch_up()
            with self._lock:
                self._status = self._reap()
                self._over.set()
            dialer.child_ended(self._ending())

        threading.Thread(target=run, name="localrpc-child", daemon=True).start()

    def _ending(self) -> str:
        status = self._status
        if status is None:
            text = "another part of this program has waited for it"
        elif status < 0:
            text = f"it was killed by {_name(-status)}"
        else:
            text = f"it ended with exit status {status}"
        if self._tail is not None and (lines := self._tail.lines()):
            text += f"; the end of its standard error:\n{lines}"
        return text

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
                self.wait(self._grace)
                return
            except TimeoutError:
                with self._lock:
                    if not self._over.is_set():
                        os.kill(self.pid, signo)
        self.wait(None)


def _name(signo: int) -> str:
    try:
        return signal.Signals(signo).name
    except ValueError:  # one of those for real time
        return f"signal {signo}"


def spawn(
    argv: Sequence[str],
    options: Options,
    env: Mapping[str, str] | None,
    cwd: str | None,
    how: Manner,
) -> tuple[ToChild, Child]:
    """Start a program. Return the dialer of its channel, and the process."""
    refuse_greenlets()
    with to_child.making, Preparation(how.address, captures_stderr=how.tail) as made:
        process = subprocess.Popen(
            argv,
            stdin=_stream(0),
            stdout=_stream(1),
            stderr=made.stderr if how.tail else _stream(2),
            pass_fds=made.given.descriptors(),
            env=made.given.environment(os.environ if env is None else env),
            cwd=cwd,
        )
        return _started(made, process.pid, process.wait, options, how)


def _stream(fd: int) -> int | None:
    """Return subprocess's None for a standard stream that a program inherits, else DEVNULL.

    If this process has closed it, another file may have got its number. In a program without it
    the next file would, and what the program prints would be written there.
    """
    try:
        return None if os.get_inheritable(fd) else subprocess.DEVNULL
    except OSError:
        return subprocess.DEVNULL


def fork(serve: Callable[[], object], options: Options, how: Manner) -> tuple[ToChild, Child]:
    """Fork, and run `serve` in the child until it returns, which ends the child.

    Return, in the parent, the dialer of the channel to it, and the process.
    """
    refuse_greenlets()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    with to_child.making, Preparation(how.address, captures_stderr=how.tail) as made:
        pid = made.fork()
        if pid == 0:
            _be_child(made, serve)

        def reap() -> int | None:
            try:
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            except ChildProcessError:
                return None

        return _started(made, pid, reap, options, how)


def _started(
    made: Preparation, pid: int, reap: Callable[[], int | None], options: Options, how: Manner
) -> tuple[ToChild, Child]:
    """Return what the parent has of a child that has started; if that fails, end the child."""
    tail = dialer = None
    try:
        file_of_child = made.file_of_child()
        made.theirs.close()
        if how.tail:
            tail = StderrTail(*made.capture.take())
        dialer = ToChild(made.ours.take(), file_of_child, pid, how.address, options)
        child = Child(pid, reap, how.grace, tail)
        child.watch(dialer)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):  # it has ended, and been waited for
            os.kill(pid, signal.SIGKILL)
        reap()
        if tail is not None:
            tail.catch_up()
        if dialer is not None:
            dialer.close()
        raise
    return dialer, child


def _fill_standard_streams() -> None:
    """Open those that are closed, for the same reason as in _stream()."""
    fd = os.open("/dev/null", os.O_RDWR)
    while fd < 3:
        os.set_inheritable(fd, True)
        fd = os.open("/dev/null", os.O_RDWR)
    os.close(fd)


def _be_child(made: Preparation, serve: Callable[[], object]) -> NoReturn:
    """Serve until the parent is gone; never return."""
    status = 1
    try:
        # The parent's handlers do not apply to the child, which ends with its connection.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        made.theirs.take()
        _fill_standard_streams()
        if made.stderr >= 0:
            os.dup2(made.stderr, 2)
            os.close(made.stderr)
        inherited.leave_to_this_process(made.given)
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
            except (AttributeError, OSError, ValueError):
                pass
        os._exit(status)

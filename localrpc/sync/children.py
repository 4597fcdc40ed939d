"""Channels to child processes: started or forked, waited for, and ended with their parent."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from time import monotonic
from typing import Any

import grpc

from localrpc import _locks
from localrpc.drive.core import patience
from localrpc.drive.greenlets import refuse_greenlets
from localrpc.options import parse_options
from localrpc.sync.channel import Channel
from localrpc.sync.server import Server
from localrpc.transports import inherited, parse_target

_TARGET = "pipe:"
_GRACE = 5.0
"""Seconds that a child has to end by itself once its channel is closed, before SIGTERM; then
seconds until SIGKILL."""

Options = Iterable[tuple[str, Any]] | None


class ChildChannel(Channel):
    """A channel to one child process, as spawn_channel and fork_channel return it.

    close() lets the child end by itself, kills it if it does not, and waits for it.
    """

    def __init__(self, dialer: inherited.ToChild, child: _Child, options: Options) -> None:
        super().__init__(parse_target(_TARGET), options, dialer)
        self._dialer = dialer
        self._child = child

    def __enter__(self) -> ChildChannel:
        return self

    def __repr__(self) -> str:
        return f"<localrpc.ChildChannel to process {self.pid}: {self._connector.state}>"

    @property
    def pid(self) -> int:
        """The child's process number."""
        return self._child.pid

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the child. Return its exit status, or minus the signal that killed it.

        `timeout` is in seconds. Raises TimeoutError.
        """
        return self._child.wait(timeout)

    def close(self) -> None:
        super().close()
        self._dialer.close()
        self._child.end()


class _Child:
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


def spawn_channel(
    argv: Sequence[str], options: Options, env: Mapping[str, str] | None, cwd: str | None
) -> ChildChannel:
    """See localrpc.spawn_channel."""
    refuse_greenlets()
    parsed = parse_options(options)
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
        dialer = inherited.ToChild(pair.parent, process.pid, parse_target(_TARGET), parsed)
    child = _Child(process.pid, process.wait)
    child.watch(dialer)
    return ChildChannel(dialer, child, options)


def fork_channel(
    setup: Callable[[grpc.Server], object],
    thread_pool: Callable[[], Executor] | None,
    options: Options,
) -> ChildChannel:
    """See localrpc.fork_channel."""
    refuse_greenlets()
    options = tuple(options or ())
    parsed = parse_options(options)
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
            dialer = inherited.ToChild(pair.parent, pid, parse_target(_TARGET), parsed)
    if pid == 0:
        for fd in pair.parent:
            os.close(fd)
        inherited.leave_to_this_process(pair.child)
        _be_child(setup, thread_pool, options)

    def reap() -> int | None:
        try:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except ChildProcessError:
            return None

    child = _Child(pid, reap)
    child.watch(dialer)
    return ChildChannel(dialer, child, options)


def _be_child(
    setup: Callable[[grpc.Server], object],
    thread_pool: Callable[[], Executor] | None,
    options: Options,
) -> None:
    """Serve until the parent is gone; never return."""
    status = 1
    try:
        # The parent's handlers do not apply to the child, which ends with its pipe.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        pool = thread_pool() if thread_pool else ThreadPoolExecutor()
        server = Server(pool, (), (), options, None, None, xds=False)
        setup(server)
        server.add_insecure_port(_TARGET)
        server.start()
        server.wait_for_termination()
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

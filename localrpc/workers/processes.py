"""The processes of workers: how one is started, and how it ended."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence

from localrpc.workers import control
from localrpc.workers.control import Control
from localrpc.workers.places import Place

_logger = logging.getLogger("localrpc.serve")
KEPT = "LOCALRPC_SUPERVISOR"
"""What a supervisor leaves to the one that replaces it; in the environment."""
_NOT_FOR_WORKERS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", KEPT)
_WORKER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "run_worker.py")
_TRIAL = 10.0
"""Seconds that a new supervisor's imports may take; meanwhile this one does nothing else."""


class Child:
    """A worker's process, or a preloader's, and the way to it."""

    def __init__(
        self, pid: int | None, down: Control, own: list[Place], preloader: int = 0
    ) -> None:
        self.pid = pid
        """None: a preloader has yet to fork it."""
        self.down = down
        self.own = own
        """Where it listens alone, while it takes new clients."""
        self.preloader = preloader
        """Which one forks it; 0: none."""
        self.arrives = pid is None
        """It may not be a child of this process yet."""
        self.is_doomed = False
        """It is to be killed as soon as its pid is known."""
        self.heard = True
        """It may still send reports."""
        self.spread = random.random()
        """Which part of a tenth of its limit of calls it may have more: not all end at once."""


def descriptors(listening: Sequence[Place]) -> list[int]:
    """Return those of the sockets at which a worker listens."""
    bound = [place.bound for place in listening]
    return [each.sock.fileno() for each in bound if each is not None]


def start(shown: Sequence[str], theirs: Control, listening: Sequence[Place] = ()) -> int:
    """Start a worker's process, or a preloader's, which has the descriptors of its places and its
    side of the way to the supervisor; return its pid. `shown` are further arguments, to be seen
    in lists of processes.

    The caller waits for it. Raises OSError: no descriptors, processes or memory are left, or no
    interpreter.
    """
    # The same numbers as here: they are free there.
    fds = [theirs.fileno(), *descriptors(listening)]
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    environment = {k: v for k, v in os.environ.items() if k not in _NOT_FOR_WORKERS}
    # A terminal sends SIGINT to all of them: a worker ignores it from the beginning.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process = subprocess.Popen(
            [sys.executable, *flags, _WORKER, *shown],
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            env=environment | {control.ENVIRONMENT: str(theirs.fileno())},
        )
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    process.returncode = 0  # or it would be waited for when it is collected
    return process.pid


def can_start(trial: str) -> bool:
    """Try what a new supervisor does first: it could not be undone."""
    # Not from the current folder, where -c looks first.
    program = f"import sys; sys.path[:] = sys.argv[1:]; import localrpc.workers.supervisor\n{trial}"
    command = [sys.executable, "-c", program, *sys.path]
    try:
        done = subprocess.run(
            command,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=_TRIAL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        _logger.error("SIGUSR2: a new supervisor cannot start: %s", error)
        return False
    if done.returncode:
        _logger.error("SIGUSR2: a new supervisor cannot start: %s", done.stderr.rstrip())
    return done.returncode == 0


def dump(pid: int | None) -> None:
    """Have a worker with a watchdog write its tracebacks to stderr, and end."""
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGABRT)


def kill(pid: int | None) -> None:
    """Do nothing without a process."""
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def exit_code(pid: int | None) -> int | None:
    """Return how a child has ended; None if it runs, or is not a child of this process."""
    if pid is None:
        return None
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status) if found else None


def ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"

"""Forks whose child becomes a child of the supervisor, not of the preloader that forks.

The supervisor is a subreaper meanwhile (PR_SET_CHILD_SUBREAPER in prctl(2)): processes whose
parent ends become its children. The preloader forks a process that forks the worker, and ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37
_PAUSE = 0.0005
"""Seconds from one look at this process's parent to the next: no event announces another one."""
_UNKNOWN = 255
"""Exit code of a process that could not fork, for a reason that is not an errno."""


@cache
def _libc() -> Any:
    return ctypes.PyDLL(None, use_errno=True)  # its functions keep the GIL


def _prctl(option: int, argument: Any) -> None:
    zero = ctypes.c_ulong(0)
    if _libc().prctl(option, argument, zero, zero, zero) < 0:
        raise _error()


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def is_subreaper() -> bool:
    """Return True if processes below this one become its children when their parents end."""
    found = ctypes.c_int(0)
    _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(found))
    return bool(found.value)


def set_subreaper(is_one: bool) -> None:
    _prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(is_one))


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, or has ended by now, later.

    Processes that this one forks are not killed by that.
    """
    _prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))


def fork_orphan(tell: Callable[[int], object]) -> bool:
    """Fork a process whose parent is the nearest subreaper above this one; return True in it.

    `tell` is called with its pid, in a process that ends then. In this process False is returned
    once that has ended. Raises OSError, here, if a process cannot be forked.

    The functions of os.register_at_fork() run once, around the second fork: this process stays as
    it is. If Python threads run, they run around the first one, too.
    """
    # The process between runs Python after a fork that Python does not know of. That works while
    # there is one thread; locks that others hold, or wait for, are repaired by os.fork() only.
    between = _fork() if len(sys._current_frames()) == 1 else _fork_beside_threads()
    if between:
        _wait(between)
        return False
    try:
        end_with_parent()
        parent = os.getpid()
        pid = os.fork()
        if pid:
            tell(pid)
            os._exit(0)
    except BaseException as error:
        os._exit((isinstance(error, OSError) and error.errno) or _UNKNOWN)
    while os.getppid() == parent:
        time.sleep(_PAUSE)
    return True


def _fork() -> int:
    """Fork without Python's own functions before and after it. Raises OSError."""
    pid: int = _libc().fork()
    if pid < 0:
        raise _error()
    return pid


def _fork_beside_threads() -> int:
    with warnings.catch_warnings():  # the preloader has warned, and names the threads
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _wait(pid: int) -> None:
    """Raises OSError if the process has ended with its number."""
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:  # the application ignores SIGCHLD
        return
    code = os.waitstatus_to_exitcode(status)
    if code:
        raise OSError(code, f"{os.strerror(code)}" if 0 < code < _UNKNOWN else f"status {code}")

"""A preloader: the process that has loaded the application, and forks the workers.

It runs nothing of the application but its imports, starts no thread, and ends with the supervisor.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path

from localrpc.workers import forking, loading
from localrpc.workers.application import Application
from localrpc.workers.control import Control, Event, Report
from localrpc.workers.settings import Settings

_logger = logging.getLogger("localrpc.serve")
CANNOT_LOAD = 1
"""Exit code."""
_OWN_THREADS = "localrpc-"
"""How names of threads begin that localrpc starts again where they are needed after a fork."""


def preload(up: Control, settings: Settings) -> tuple[Control, Application]:
    """Load the application, and fork a worker whenever the supervisor asks for one.

    Returns only in a worker: with its way to the supervisor, and the application. Raises SystemExit
    if the application cannot be loaded.
    """
    forking.end_with_parent()
    if up.has_ended():  # before that
        os._exit(0)
    began = time.monotonic()
    try:
        app = loading.load(settings)
    except Exception as error:
        text = loading.reason(error, settings)
        up.send_report(Report(Event.CANNOT_START, text))
        _logger.error("the preloader cannot load %s: %s", settings.app, text)
        up.close()
        raise SystemExit(CANNOT_LOAD) from None
    loading.load_server(app, settings.targets)
    _warn_of_threads(settings.app)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()  # or each worker would write it
    # A collection writes to each object that it looks at: their pages would be copied.
    gc.collect()
    gc.freeze()
    up.send_report(Report(Event.LOADED, f"{time.monotonic() - began:.2f} s"))
    while (theirs := up.receive_worker()) is not None:
        try:
            if forking.fork_orphan(partial(_tell, theirs)):
                up.close()
                theirs.send_report(Report(Event.BEGINS, str(os.getpid())))
                return theirs, app
        except OSError as error:
            _logger.error("the preloader cannot fork a worker: %s", error)
        theirs.close()
    os._exit(0)  # what the application does at the end of a process is the workers' to do


def _tell(theirs: Control, pid: int) -> None:
    theirs.send_report(Report(Event.FORKED, str(pid)))


def _warn_of_threads(app: str) -> None:
    names = sorted(filter(None, _names_of_threads()))
    if names:
        _logger.warning(
            "importing %s has started threads, which workers do not have, as a fork copies none:"
            " %s; start them in the function that is given the server, or leave --preload out",
            app,
            ", ".join(names),
        )


def _names_of_threads() -> list[str]:
    """Return the names of the other threads; native ones that have the program's name, as those
    of numpy, are not among them: their libraries start them again."""
    threads = threading.enumerate()
    known = {each.native_id for each in threads}
    names = [each.name for each in threads if each is not threading.main_thread()]
    own = Path("/proc/self/comm").read_text()
    for task in Path("/proc/self/task").iterdir():
        try:
            name = (task / "comm").read_text()
        except OSError:  # it has ended
            continue
        if int(task.name) not in known and name != own:
            names.append(name.rstrip())
    return [name for name in names if not name.startswith(_OWN_THREADS)]

"""The folder of names."""

from __future__ import annotations

import os

from .finding import Finding, ok, problem, warning
from .system import System


def runtime_directory(system: System) -> Finding:
    try:
        path = system.runtime_directory()
    except FileNotFoundError:
        path = system.runtime_path()
        parent = os.path.dirname(path.rstrip("/")) or "/"
        if not system.writable(parent):
            return problem(
                f"{path} is not there, and {parent} cannot be written",
                "shm:NAME, mq: and sysvmq: have nowhere to put their names",
                "set LOCALRPC_RUNTIME_DIR to a directory that this user can make",
            )
        return ok(f"{path}, which the first server makes")
    except (OSError, ImportError) as error:
        reason, _, fix = str(getattr(error, "strerror", None) or error).partition("; ")
        return problem(reason, "shm:NAME, mq: and sysvmq: cannot be used", fix)
    if not system.writable(path):
        return problem(
            f"{path} cannot be written",
            "shm:NAME, mq: and sysvmq: have nowhere to put their names",
            f"chmod 700 {path}, or set LOCALRPC_RUNTIME_DIR to another directory",
        )
    room = 107 - len(os.fsencode(path)) - len("/.shm")
    if room < 20:
        return warning(
            path,
            f"shm:NAME has room for {max(0, room)} bytes of name: a socket's path has 107",
            "set LOCALRPC_RUNTIME_DIR to a shorter one",
        )
    return ok(f"{path}, this user's alone")

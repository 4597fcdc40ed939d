"""The runtime directory, which holds the names."""

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
                f"{path} does not exist, and {parent} is not writable",
                "shm:NAME, mq: and sysvmq: have no place for their names",
                "set LOCALRPC_RUNTIME_DIR to a directory that this user can create",
            )
        return ok(f"{path}, which the first server will create")
    except (OSError, ImportError) as error:
        reason, _, fix = str(getattr(error, "strerror", None) or error).partition("; ")
        return problem(reason, "shm:NAME, mq: and sysvmq: cannot be used", fix)
    if not system.writable(path):
        return problem(
            f"{path} is not writable",
            "shm:NAME, mq: and sysvmq: have no place for their names",
            f"chmod 700 {path}, or set LOCALRPC_RUNTIME_DIR to another directory",
        )
    room = 107 - len(os.fsencode(path)) - len("/.shm")
    if room < 20:
        return warning(
            path,
            f"shm:NAME has room for {max(0, room)} bytes of name: a socket's path has at most 107",
            "set LOCALRPC_RUNTIME_DIR to a shorter path",
        )
    return ok(f"{path}, accessible to this user only")

"""What a supervisor and its workers are told on the command line; travels as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

_MOST = 64 << 10
"""Bytes of them all: they travel in one packet."""


@dataclass(frozen=True)
class Settings:
    app: str
    """MODULE:NAME of what serves."""
    targets: tuple[str, ...]
    workers: int = 1
    threads: int = 10
    """Of each worker, for synchronous handlers."""
    grace: float = 30.0
    """Seconds that calls in progress may take when a worker ends."""
    boot_timeout: float = 60.0
    """Seconds in which a worker has to be ready."""
    max_memory: int = 0
    """Bytes of a worker's own memory above which it is replaced; 0: any number."""
    max_requests: int = 0
    """Calls after which a worker is replaced, or up to a tenth more; 0: any number."""
    watchdog: float = 0.0
    """Seconds in which a worker has to run Python code, or its event loop, or it is killed and
    replaced; 0: it is not watched."""
    preload: bool = False
    """Load the application once, in a process that forks the workers."""
    reload: bool = False
    """Replace the workers when a .py file below app_dir changes."""
    options: tuple[tuple[str, Any], ...] = ()
    """Of the servers, as `localrpc.server(options=...)` takes them."""
    uds_mode: int | None = None
    """Of the files of Unix sockets; None: 0600, or 0666 if the options allow other users."""
    uds_group: str | int | None = None
    """Of these files, with mode 0660; the servers allow it."""
    app_dir: str = "."
    """Where modules are looked up first."""
    health: bool = True
    reflection: bool = True
    log_level: str = "info"
    log_json: bool = False

    def __post_init__(self) -> None:
        for name in ("grace", "boot_timeout"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} has to be a number of seconds, not {getattr(self, name)}")
        if not (self.watchdog == 0 or 1 <= self.watchdog < math.inf):
            raise ValueError(f"watchdog has to be 0, or 1 s or more, not {self.watchdog}")
        if self.workers < 1 or self.threads < 1:
            raise ValueError("there has to be at least one worker, and one thread of each")
        if self.max_memory < 0 or self.max_requests < 0:
            raise ValueError("a limit of a worker is 0, for none, or more")
        mode = self.uds_mode
        if isinstance(mode, str):
            raise TypeError(f"uds_mode has to be a number such as 0o660, not {mode!r}")
        if mode is not None and (mode & 0o600 != 0o600 or mode > 0o777):
            raise ValueError(
                f"mode {mode:04o} has to include 0600, which is the owner's, and to be at most 0777"
            )

    def dump(self) -> bytes:
        """Raises TypeError for an option that JSON does not have, ValueError if it is too much."""
        for key, value in self.options:
            try:
                json.dumps(value)
            except TypeError:
                raise TypeError(
                    f"option {key!r}: {value!r} cannot be passed to worker processes; give a"
                    " number, a string, or a list of these"
                ) from None
        data = json.dumps(asdict(self)).encode()
        if len(data) > _MOST:
            raise ValueError(
                f"the targets, the options and the other settings have {len(data)} bytes together,"
                f" and worker processes are sent at most {_MOST}; leave some out, or shorten them"
            )
        return data

    @classmethod
    def load(cls, data: bytes) -> Settings:
        made = cls(**json.loads(data))
        options = tuple((key, value) for key, value in made.options)
        return replace(made, targets=tuple(made.targets), options=options)

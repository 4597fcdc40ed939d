"""What a supervisor and its workers are told on the command line; travels as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any


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
    reload: bool = False
    """Replace the workers when a .py file below app_dir changes."""
    options: tuple[tuple[str, Any], ...] = ()
    """Of the servers, as `localrpc.server(options=...)` takes them."""
    app_dir: str = "."
    """Where modules are looked up first."""
    health: bool = True
    reflection: bool = True
    log_level: str = "info"
    log_json: bool = False

    def dump(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def load(cls, data: bytes) -> Settings:
        made = cls(**json.loads(data))
        options = tuple((key, value) for key, value in made.options)
        return replace(made, targets=tuple(made.targets), options=options)

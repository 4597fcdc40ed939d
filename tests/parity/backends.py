"""The implementations of gRPC's Python API under comparison."""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.ports import free_port

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Backend:
    """Where channels and servers come from, and how their addresses are spelled."""

    name: str
    module: str
    address: Callable[[str], str] = field(repr=False)
    reference: Backend | None = field(default=None, repr=False)
    """What it is compared with, if not with grpcio over a Unix socket."""
    by_grpcio: bool = False
    """Whether grpcio carries the calls, so that its oddities and its races show."""

    @property
    def has_paths(self) -> bool:
        """Whether its addresses are files."""
        return "/" in self.address("/path")

    def fresh_address(self, directory: str) -> str:
        """An address at which nobody listens yet."""
        return self.address(os.path.join(directory, f"s{next(_numbers)}"))

    def make_server(self, pool: Any, **arguments: Any) -> Any:
        return importlib.import_module(self.module).server(pool, **arguments)

    def make_channel(self, target: str, **arguments: Any) -> Any:
        return importlib.import_module(self.module).insecure_channel(target, **arguments)


def _word(path: str) -> str:
    """A name that no directory has to exist for."""
    return path.replace("/", "-")[-50:]


REFERENCE = Backend("grpcio", "grpc", lambda path: f"unix:{path}")
REFERENCE_TCP = Backend("grpcio-tcp", "grpc", lambda path: f"127.0.0.1:{free_port()}")
REFERENCE_ABSTRACT = Backend(
    "grpcio-abstract", "grpc", lambda path: f"unix-abstract:{os.getpid()}{_word(path)}"
)

CANDIDATES = (
    # grpcio against itself: a scenario that depends on timing is no yardstick.
    Backend("grpcio-again", "grpc", lambda path: f"unix:{path}", by_grpcio=True),
    Backend("shm-eventfd", "localrpc", lambda path: f"shm:{path}?wakeup=eventfd"),
    Backend("shm-signal", "localrpc", lambda path: f"shm:{path}?wakeup=signal&signo=SIGUSR2"),
    Backend("shm-futex", "localrpc", lambda path: f"shm:{path}?wakeup=futex"),
    Backend("unix", "localrpc", lambda path: f"unix:{path}"),
    Backend("pipe", "localrpc", lambda path: f"pipe:{path}"),
    Backend("mq", "localrpc", lambda path: f"mq:{os.path.basename(path)}"),
    Backend("sysvmq", "localrpc", lambda path: f"sysvmq:{os.path.basename(path)}"),
    Backend("file", "localrpc", lambda path: f"file:{path}"),
    Backend("tcp", "localrpc", lambda path: f"tcp:127.0.0.1:{free_port()}", REFERENCE_TCP),
    Backend("grpc", "localrpc", lambda path: f"grpc:unix:{path}", by_grpcio=True),
    Backend(
        "grpc-tcp",
        "localrpc",
        lambda path: f"grpc:127.0.0.1:{free_port()}",
        REFERENCE_TCP,
        by_grpcio=True,
    ),
    Backend("inproc", "localrpc", lambda path: f"inproc:{_word(path)}", REFERENCE_ABSTRACT),
)

"""The implementations of gRPC's Python API under comparison."""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.conftest import FULL, TARGETS
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
    """True if grpcio carries the calls, so that its oddities and its races show."""

    @property
    def has_paths(self) -> bool:
        """True if its addresses are files."""
        return "/" in self.address("/path")

    def fresh_address(self, directory: str) -> str:
        """Return an address without a server."""
        return self.address(os.path.join(directory, f"s{next(_numbers)}"))

    def make_server(self, pool: Any, **arguments: Any) -> Any:
        return importlib.import_module(self.module).server(pool, **arguments)

    def make_channel(self, target: str, **arguments: Any) -> Any:
        return importlib.import_module(self.module).insecure_channel(target, **arguments)


def _filled(text: str) -> Callable[[str], str]:
    """Return `text` with a unique name: a path's last part, in its directory if there is one."""

    def address(path: str) -> str:
        directory, name = os.path.split(path)
        if "{directory}" not in text:  # nor has one to exist
            name = "n" + path.replace("/", "-")[-50:]
        port = free_port() if "{port}" in text else 0
        return text.format(directory=directory, name=name, port=port, unique=f"lrt{os.getpid()}")

    return address


REFERENCE = Backend("grpcio", "grpc", _filled("unix:{directory}/{name}"))
REFERENCE_TCP = Backend("grpcio-tcp", "grpc", _filled("127.0.0.1:{port}"))
REFERENCE_ABSTRACT = Backend(
    "grpcio-abstract", "grpc", _filled("unix-abstract:{unique}-grpcio-{name}")
)


def _candidate(name: str, text: str) -> Backend:
    """localrpc over one transport, and grpcio over what is spelled most like it."""
    reference = REFERENCE_ABSTRACT
    if "{port}" in text:
        reference = REFERENCE_TCP
    elif "{directory}" in text:
        reference = REFERENCE
    by_grpcio = text.startswith("grpc:")
    return Backend(name, "localrpc", _filled(text), reference, by_grpcio=by_grpcio)


CANDIDATES = (
    # grpcio against itself: a scenario that depends on timing compares nothing.
    Backend("grpcio-again", "grpc", _filled("unix:{directory}/{name}"), by_grpcio=True),
    *(_candidate(name, text) for name, text in TARGETS.items()),
    _candidate("shm-path", "shm:{directory}/{name}?wakeup=signal&signo=SIGUSR2"),
    _candidate("grpc", "grpc:unix:{directory}/{name}"),
    _candidate("grpc-tcp", "grpc:127.0.0.1:{port}"),
)

_IN_FULL = ("grpcio-again", "shm-eventfd", "unix", "inproc", "tcp", "grpc")
"""Those that differ in what user code can see: a ring, a path, one process, a port, grpcio."""
_ONE_IN = 1 if FULL else 4


def pairs(scenarios: Sequence[str]) -> Iterator[tuple[Backend, str]]:
    """Yield each candidate with each scenario.

    Those that differ only in how bytes travel play a quarter of the scenarios each, together all
    of them three times.
    """
    variants = [one.name for one in CANDIDATES if one.name not in _IN_FULL]
    assert len(variants) == len(CANDIDATES) - len(_IN_FULL) >= 3 * 4
    for candidate in CANDIDATES:
        for number, scenario in enumerate(scenarios):
            if candidate.name not in variants or (
                number % _ONE_IN == variants.index(candidate.name) % _ONE_IN
            ):
                yield candidate, scenario

"""Refuses what cannot work: threads that are greenlets.

localrpc waits in C, with real threads beside it. Where gevent or eventlet has put
greenlets in their place, the first wait stops them all, and nobody gets a word.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from localrpc.errors import Unsupported


class _Library(NamedTuple):
    name: str
    module: str
    asks: str
    """Its function that knows whether something is patched."""
    patches: str
    vital: tuple[str, ...]
    """What localrpc stands on, as the arguments of `patches`."""
    modules: dict[str, str]
    """Those that `asks` knows by another name."""


_LIBRARIES = (
    _Library(
        "gevent",
        "gevent.monkey",
        "is_module_patched",
        "gevent.monkey.patch_all",
        ("thread", "socket", "select", "queue"),
        {"thread": "threading"},
    ),
    _Library(
        "eventlet",
        "eventlet.patcher",
        "is_monkey_patched",
        "eventlet.monkey_patch",
        ("thread", "socket", "select", "os", "time"),
        {},
    ),
)


def refuse_greenlets() -> None:
    """Raises Unsupported in a process that gevent or eventlet has patched."""
    for library in _LIBRARIES:
        patcher: Any = sys.modules.get(library.module)
        if patcher is None:
            continue
        is_patched = getattr(patcher, library.asks)
        patched = [name for name in library.vital if is_patched(library.modules.get(name, name))]
        if patched:
            without = ", ".join(f"{name}=False" for name in library.vital)
            raise Unsupported(
                f"{library.name} has replaced {', '.join(patched)} in this process (monkey"
                " patching), and localrpc, which waits in C, would stop all of its greenlets for"
                " ever; use localrpc in a process that is not patched, or patch by"
                f" {library.patches}({without}), or use grpcio, with"
                " grpc.experimental.gevent.init_gevent()"
            )

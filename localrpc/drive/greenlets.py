"""Refuses to work in a process where gevent or eventlet has replaced threads by greenlets.

localrpc waits in C, and relies on real threads beside it. In a process with monkey patching
the first wait would stop all greenlets, without any message.
"""

from __future__ import annotations

import sys
from typing import Any

from localrpc.errors import Unsupported


class _Library:
    def __init__(
        self,
        name: str,
        module: str,
        asks: str,
        patches: str,
        vital: tuple[str, ...],
        modules: dict[str, str],
    ) -> None:
        self.name = name
        self.module = module
        self.asks = asks
        """Its function that tells whether a module is patched."""
        self.patches = patches
        self.vital = vital
        """The modules that localrpc relies on, as the arguments of `patches`."""
        self.modules = modules
        """Modules that `asks` knows by another name."""


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
    """Raise Unsupported in a process that gevent or eventlet has patched."""
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
                " patching), and localrpc, which waits in C, would stop all of its greenlets"
                " forever; use localrpc in a process that is not patched, or patch by"
                f" {library.patches}({without}), or use grpcio, with"
                " grpc.experimental.gevent.init_gevent()"
            )

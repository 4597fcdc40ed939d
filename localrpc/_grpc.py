"""grpc's abstract classes as base classes, without importing grpc.

Importing grpc takes longer than a program that makes one call and ends takes for all the rest,
and such a program needs none of it. So a class has the base that `base("Channel")` returns: if
grpc has been imported before, grpc.Channel itself; otherwise a class of this module that becomes
a virtual subclass of grpc.Channel, as by grpc.Channel.register(), before anything outside of
grpc can ask. isinstance() and issubclass() give the same answers either way.

Nothing in the import system is wrapped or replaced. A finder at the head of sys.meta_path, which
never finds anything, sees that submodules of grpc are imported. grpc/__init__.py defines its
classes before it imports the last of those, grpc.aio. Should that ever change, or should grpc be
reloaded, then isinstance() still works: it reads an object's `__class__`, which registers too.
"""

from __future__ import annotations

import sys
from abc import ABCMeta
from typing import Any

from localrpc._later import load

_stand_ins: list[type[_StandIn]] = []


class _StandIn:
    """In place of a class of grpc's that has not been imported."""

    _theirs = ""
    """Its name in grpc."""
    _registered: Any = None
    """The class with which this one is registered: after a reload, grpc has another."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        _register()
        return type(self)


class _Watch:
    """A finder on sys.meta_path."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name.startswith("grpc."):
            _register()


def base(name: str) -> Any:
    """grpc's class of that name, or what stands in for it."""
    if sys.modules.get("grpc") is not None:
        return _imported(name)
    stand_in = type(name, (_StandIn,), {"__module__": __name__, "_theirs": name})
    _stand_ins.append(stand_in)
    if _Watch not in sys.meta_path:
        sys.meta_path.insert(0, _Watch)
    # Another thread may have begun to import grpc before it could be seen. If it begins from
    # now on, all of grpc's submodules are still to come.
    if sys.modules.get("grpc") is not None:
        _imported(name)
        _register()
    return stand_in


def _imported(name: str) -> Any:
    return getattr(load("grpc"), name)  # waits for another thread that is at it


def _register() -> None:
    """Any number of threads may do this at once, also while grpc is being imported."""
    grpc = sys.modules.get("grpc")
    for stand_in in _stand_ins:
        theirs = getattr(grpc, stand_in._theirs, None)
        if isinstance(theirs, ABCMeta) and theirs is not stand_in._registered:
            theirs.register(stand_in)
            stand_in._registered = theirs

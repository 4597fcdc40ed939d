"""Modules that are imported when one of their attributes is first used.

For what a program may not need: names in annotations, which typing.get_type_hints() looks up in the
module's globals, and whatever a call that succeeds does not use.
"""

from __future__ import annotations

import errno
import os
from importlib import import_module
from types import ModuleType
from typing import Any

from localrpc import _locks


def _spare_descriptor() -> int:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


_spare = _spare_descriptor()
"""Given up for an import where no other descriptor is free."""
_using_spare = _locks.Lock()


def load(name: str) -> ModuleType:
    """Import a module, also in a process that has no descriptor left to open files with.

    What a program imports first when a call fails must not fail for the same reason.
    """
    global _spare
    try:
        return import_module(name)
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE) or _spare < 0:
            raise
    with _using_spare:
        spare, _spare = _spare, -1
        if spare >= 0:
            os.close(spare)
        try:
            return import_module(name)
        finally:
            _spare = _spare_descriptor()


class Later(ModuleType):
    """A module's functions, classes and constants; each is looked up in it once."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(load(self.__name__), name)
        setattr(self, name, found)
        return found

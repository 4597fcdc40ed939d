"""Modules that are imported when one of their attributes is first used.

For what a program may not need: names in annotations, which typing.get_type_hints() looks up in the
module's globals, and whatever a call that succeeds does not use.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any


class Later(ModuleType):
    """A module's functions, classes and constants; each is looked up in it once."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(import_module(self.__name__), name)
        setattr(self, name, found)
        return found

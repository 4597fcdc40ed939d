"""Modules that are imported when one of their attributes is first used.

typing.get_type_hints() looks names of annotations up in the module's globals. A Later stands
there in place of a module that is needed for annotations only, and would slow down every program
if it were imported.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any


class Later(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)

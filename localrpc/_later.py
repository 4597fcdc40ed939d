"""Modules that are not imported until somebody asks for what they hold.

typing.get_type_hints() looks the names of annotations up in the module's globals.
Where an import only for them would slow every program down, one of these stands
there instead.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any


class Later(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)

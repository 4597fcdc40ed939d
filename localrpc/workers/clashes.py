"""Files of an application that have the name of another module, such as socket.py or grpc.py."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from types import ModuleType


def advice(error: BaseException, folder: str) -> str:
    """Return lines that name such files in the folder, if the error comes from one of them."""
    lines = (_line(name, folder) for name in dict.fromkeys(_names(error, folder)))
    return "".join(f"\n{line}" for line in lines if line)


def _names(error: BaseException | None, folder: str) -> Iterator[str]:
    """Yield the top-level modules that the error, and those that led to it, are about."""
    while error is not None:
        if isinstance(error, ImportError) and error.name:
            yield error.name.partition(".")[0]
        if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
            yield error.obj.__name__.partition(".")[0]
        trace = error.__traceback__
        while trace is not None:
            place = os.path.relpath(trace.tb_frame.f_code.co_filename, folder)
            yield place.partition(os.sep)[0].removesuffix(".py")
            trace = trace.tb_next
        error = error.__cause__ or error.__context__


def _line(name: str, folder: str) -> str:
    files = (f"{name}.py", os.path.join(name, "__init__.py"))
    paths = [path for file in files if os.path.isfile(path := os.path.join(folder, file))]
    other = _other(name, folder)
    if not paths or not other:
        return ""
    (path, *_) = paths
    loaded = getattr(sys.modules.get(name), "__file__", None)
    place = "is imported in its place" if loaded == path else "is not imported"
    return f"{path} has the name of {other} and {place}: rename it"


def _other(name: str, folder: str) -> str:
    """Describe the module that has the name without the folder; empty if there is none."""
    if name in sys.stdlib_module_names:
        return f"Python's module {name!r}"
    spec = PathFinder.find_spec(name, [each for each in sys.path if each != folder])
    origin = spec.origin if spec is not None else getattr(sys.modules.get(name), "__file__", None)
    return f"the installed module {name!r} ({origin})" if origin else ""

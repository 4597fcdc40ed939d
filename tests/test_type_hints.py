"""typing.get_type_hints() works on all that users can reach: validators and injectors ask it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import typing
from collections.abc import Iterator
from typing import Any

import pytest

import localrpc
from tests.skips import lack

# What a program imports only to have it replaced by the core, the command, or the benchmark.
NOT_PUBLIC = ("_core", "bench", "calls", "cli", "drive", "wire")


def _modules() -> Iterator[str]:
    yield "localrpc"
    for module in pkgutil.walk_packages(localrpc.__path__, "localrpc."):
        if module.name.split(".")[1] not in NOT_PUBLIC:
            yield module.name


def _functions(owner: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Functions and classes that `owner`, a module or class, defines, and what is in those."""
    for name, found in list(vars(owner).items()):
        if name.startswith("_") and not name.startswith("__"):
            continue
        if isinstance(found, (classmethod, staticmethod)):
            found = found.__func__
        elif isinstance(found, property):
            found = found.fget
        if getattr(found, "__module__", None) != getattr(owner, "__module__", owner.__name__):
            continue
        if inspect.isfunction(found):
            yield f"{path}.{name}", found
        elif inspect.isclass(found) and inspect.ismodule(owner):
            yield f"{path}.{name}", found
            yield from _functions(found, f"{path}.{name}")


@pytest.mark.parametrize("module", list(_modules()))
def test_all_that_is_public_has_type_hints(module: str) -> None:
    try:
        owner = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("localrpc"):
            raise
        lack(f"needs {error.name}: pip install {error.name}")
    failed = {}
    for name, found in _functions(owner, module):
        try:
            typing.get_type_hints(found)
        except Exception as error:
            failed[name] = repr(error)
    assert not failed


def test_every_name_of_the_package_is_among_them() -> None:
    names = {name for name, _ in _functions(localrpc, "localrpc")}
    functions = [name for name in localrpc.__all__ if not name.startswith("_") and name.islower()]
    callables = {f"localrpc.{name}" for name in functions if name not in ("observe", "testing")}
    # Importing the package of that name hides the function.
    assert callables - names <= {"localrpc.transports"}
    assert typing.get_type_hints(type(localrpc.transports).__call__)


def test_hints_are_the_classes_themselves() -> None:

    from localrpc.sync.children import ChildChannel

    assert typing.get_type_hints(localrpc.insecure_channel)["return"] is localrpc.Channel
    assert typing.get_type_hints(localrpc.instrument)["channel"]
    assert typing.get_type_hints(localrpc.spawn_channel)["return"] is ChildChannel

"""What APP names: a servicer, or a function that is given the server."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

from localrpc.workers import clashes

Setup = Callable[[Any], "Awaitable[object] | object"]


class BadApplication(Exception):
    """The text names what was looked for, and the fix."""


class Application(NamedTuple):
    setup: Setup
    """Adds its services to a server."""
    is_async: bool
    """It is for a server of localrpc.aio."""


def load(place: str, folder: str) -> Application:
    """Import MODULE:NAME, in `folder` first.

    Raises BadApplication, and whatever the module raises.
    """
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)
    return application_of(_named(place, folder), place)


def _named(place: str, folder: str) -> Any:
    module_name, _, path = place.partition(":")
    if not module_name or not path:
        raise BadApplication(
            f"{place!r} is not MODULE:NAME, such as greeter:Greeter (a servicer's class) or"
            " greeter:setup (a function that is given the server)"
        )
    try:
        found = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # Not for a module that this one imports.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise BadApplication(
            f"{place!r}: there is no module {error.name!r} in {folder} or on Python's path; run"
            " the command where it is, or name the folder with --app-dir"
            + clashes.advice(error, folder)
        ) from None
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            raise BadApplication(
                f"{place!r}: {found!r} has no {name!r}{_near(name, found)}"
                + clashes.advice(error, folder)
            ) from None
    return found


def _near(name: str, found: Any) -> str:
    import difflib

    names = [each for each in dir(found) if not each.startswith("_")]
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def application_of(found: Any, place: str) -> Application:
    """Raises BadApplication."""
    if inspect.isclass(found):
        add = _adder(found, place)
        return Application(lambda server: add(found(), server), _is_async(found))
    if not inspect.isroutine(found) and any(_adders(type(found))):
        add = _adder(type(found), place)
        return Application(lambda server: add(found, server), _is_async(type(found)))
    if callable(found):
        called = found if inspect.isroutine(found) else found.__call__
        return Application(found, inspect.iscoroutinefunction(called))
    raise BadApplication(
        f"{place!r} is {found!r}: it has to be a servicer, its class, or a function that is given"
        " the server"
    )


def _adder(kind: type, place: str) -> Callable[[Any, Any], object]:
    for add in _adders(kind):
        return add
    raise BadApplication(
        f"{place!r}: {kind.__name__} is not a servicer: it does not inherit a generated class, such"
        " as GreeterServicer, beside which there is add_GreeterServicer_to_server()"
    )


def _adders(kind: type) -> Iterator[Callable[[Any, Any], object]]:
    """Yield the generated functions that add the services which a class inherits."""
    for base in kind.__mro__:
        module = sys.modules.get(base.__module__)
        # One function adds both GreeterServicer and GreeterAsyncServicer.
        name = re.sub("AsyncServicer$", "Servicer", base.__name__)
        add = getattr(module, f"add_{name}_to_server", None)
        if add is not None:
            yield add


def _is_async(kind: type) -> bool:
    """Return True if a method of its own is a coroutine function or an async generator."""
    return any(
        inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)
        for name, method in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    )

"""Tables of settings below `[tool.localrpc]`, in pyproject.toml or another file."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from localrpc.cli._near import did_you_mean, near_to

tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")


class SettingsError(Exception):
    """A table has a mistake; the text is one line, and names the file."""


def nearest(start: Path) -> Path | None:
    """Return the first pyproject.toml at or above `start`."""
    paths = (folder / "pyproject.toml" for folder in (start, *start.parents))
    return next((path for path in paths if os.path.isfile(path)), None)


def read_table(path: Path, name: str) -> dict[str, Any] | None:
    """Return `[tool.localrpc.NAME]`; None if the file has no such table.

    Raises SettingsError for a file that cannot be read, or is not TOML.
    """
    try:
        with path.open("rb") as file:
            found = tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # TOMLDecodeError, or not UTF-8
        raise SettingsError(f"{path}: {error}") from error
    for key in ("tool", "localrpc", name):
        if key not in found:
            return None
        found = found[key]
        if not isinstance(found, dict):
            raise SettingsError(f"{path}: {key} must be a table, as in [tool.localrpc.{name}]")
    return dict(found)


def unknown_key(path: Path, name: str, key: str, known: Iterable[str]) -> SettingsError:
    known = list(known)
    hint = did_you_mean(near_to(key, known)) or f"; it has {', '.join(known)}"
    return SettingsError(f"{path}: [tool.localrpc.{name}] has no {key!r}{hint}")

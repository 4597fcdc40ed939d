"""The `[tool.localrpc.generate]` table of pyproject.toml."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

# Each setting, its type, and its name on the command line.
KINDS: dict[str, type] = {
    "protos": list,
    "include": list,
    "out": str,
    "imports": str,
    "python": str,
    "init": bool,
}


class SettingsError(Exception):
    """The table has a mistake; the text is one line."""


def load(start: Path) -> dict[str, Any]:
    """Return the table of the nearest pyproject.toml at or above `start`, with absolute paths.

    Raises SettingsError for a file that is not TOML, and for unknown keys or wrong types.
    """
    for folder in (start, *start.parents):
        path = folder / "pyproject.toml"
        if path.is_file():
            return _read(path)
    return {}


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: {error}") from error
    table = document.get("tool", {}).get("localrpc", {}).get("generate", {})
    for key, value in table.items():
        kind = KINDS.get(key)
        if kind is None:
            known = ", ".join(KINDS)
            raise SettingsError(f"{path}: [tool.localrpc.generate] has no {key!r}; it has {known}")
        strings = not isinstance(value, list) or all(isinstance(item, str) for item in value)
        if not isinstance(value, kind) or not strings:
            wanted = "a list of strings" if kind is list else kind.__name__
            raise SettingsError(f"{path}: {key} in [tool.localrpc.generate] must be {wanted}")
    folder = path.parent
    settings = dict(table)
    for key in ("protos", "include"):
        if key in settings:
            settings[key] = [_from(folder, item) for item in settings[key]]
    if "out" in settings:
        settings["out"] = _from(folder, settings["out"])
    return settings


def _from(folder: Path, item: str) -> Path:
    path = folder / item
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path

"""The `[tool.localrpc.generate]` table of pyproject.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from localrpc.cli._pyproject import SettingsError, nearest, read_table, unknown_key

# Each setting, its type, and its name on the command line.
KINDS: dict[str, type] = {
    "protos": list,
    "include": list,
    "out": str,
    "imports": str,
    "python": str,
    "init": bool,
}


def load(start: Path) -> dict[str, Any]:
    """Return the table of the nearest pyproject.toml at or above `start`, with absolute paths.

    Raises SettingsError for a file that is not TOML, and for unknown keys or wrong types.
    """
    path = nearest(start)
    return {} if path is None else _read(path)


def _read(path: Path) -> dict[str, Any]:
    table = read_table(path, "generate") or {}
    for key, value in table.items():
        kind = KINDS.get(key)
        if kind is None:
            raise unknown_key(path, "generate", key, KINDS)
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

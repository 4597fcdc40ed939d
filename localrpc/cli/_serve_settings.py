"""The settings of `localrpc serve`: from the command line, the environment, then a file.

The file is pyproject.toml, or the one that --config names, with the table `[tool.localrpc.serve]`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
from click.core import ParameterSource

from localrpc.cli._pairs import Pairs, pairs_of
from localrpc.cli._pyproject import SettingsError, nearest, read_table, unknown_key
from localrpc.cli._serve_types import Mode, Size
from localrpc.options import parse_options
from localrpc.workers.settings import Settings

_TABLE = "serve"
_SHOWN = f"[tool.localrpc.{_TABLE}]"
_OF_THE_FILE = ("config", "no_config")
"""Parameters that say which file is read."""
_GIVEN = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
_PLURALS = {"target": "targets", "option": "options"}


def settings_of(context: click.Context) -> tuple[Settings, Path | None]:
    """Return the settings, and the file from which some of them are.

    Raises click.UsageError, also for a mistake in the file.
    """
    values = {name: value for name, value in context.params.items() if name not in _OF_THE_FILE}
    given = {name for name in values if context.get_parameter_source(name) in _GIVEN}
    try:
        path, found = _file(context)
        values |= {name: value for name, value in found.items() if name not in given}
        if "app" in found.keys() - given and "app_dir" not in given | found.keys():
            assert path is not None
            values["app_dir"] = str(path.parent)
        for name, shown in (("app", "argument 'MODULE:NAME'"), ("targets", "option '--target'")):
            if not values[name]:
                raise SettingsError(
                    f"Missing {shown}: give it here, as LOCALRPC_SERVE_{name.upper()}, or as"
                    f" `{name}` in {_SHOWN} of {path or 'pyproject.toml'}"
                )
        return Settings(**values), path
    except (SettingsError, ValueError, OSError) as error:
        raise click.UsageError(str(error), context) from None


# The file


def _file(context: click.Context) -> tuple[Path | None, dict[str, Any]]:
    """Return the file that has a table for this command, and its values. Raises SettingsError."""
    path: Path | None = context.params["config"]
    without = context.params["no_config"]
    if path is not None and without:
        sources = [context.get_parameter_source(name) for name in _OF_THE_FILE]
        if sources[0] is sources[1]:
            raise SettingsError(
                "--config names a file, and --no-config none: leave one of them out"
            )
        without = sources[1] is ParameterSource.COMMANDLINE
    if without:
        return None, {}
    if path is not None:
        path = path.absolute()
        table = read_table(path, _TABLE)
        if table is None:
            raise SettingsError(f"{path} has no {_SHOWN}")
    else:
        start = Path.cwd()
        path = nearest(start)
        table = None if path is None else read_table(path, _TABLE)
        if path is None or table is None:
            return None, {}
        _check_owner(path, start)
    return path, dict(_values(path, table, context.command))


def _check_owner(path: Path, start: Path) -> None:
    """Raise SettingsError for a file of another user, which says what code is executed.

    In /tmp, or for a folder below it, any user may write one.
    """
    owner = path.stat().st_uid
    if owner not in (0, os.geteuid(), start.stat().st_uid):
        raise SettingsError(
            f"{path} belongs to uid {owner}, not to this user, to root or to the owner of {start}:"
            " name it with --config, or leave it out with --no-config"
        )


def _values(path: Path, table: dict[str, Any], command: click.Command) -> Iterator[tuple[str, Any]]:
    parameters = {
        each.name: each for each in command.params if each.name and each.name not in _OF_THE_FILE
    }
    keys: dict[str, str] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        name = _PLURALS.get(name, name)
        if name not in parameters:
            known = [each.replace("_", "-") for each in parameters]
            raise unknown_key(path, _TABLE, key, known)
        if name in keys:
            raise SettingsError(
                f"{path}: {_SHOWN} has {keys[name]!r} and {key!r}, which are the same"
            )
        keys[name] = key
        try:
            converted = _converted(parameters[name], value)
        except ValueError as error:
            raise SettingsError(f"{path}: {key} in {_SHOWN} {error}") from None
        yield name, str(path.parent / converted) if name == "app_dir" else converted


class _Kind(NamedTuple):
    """What a parameter may be in TOML."""

    types: tuple[type, ...]
    text: str


def _kind_of(parameter: click.Parameter) -> _Kind:
    kind = parameter.type
    if parameter.name == "targets":
        return _Kind((list, str), "a list of strings")
    if isinstance(kind, click.types.BoolParamType):
        return _Kind((bool,), "true or false")
    if isinstance(kind, click.IntRange):
        return _Kind((int,), f"a whole number from {kind.min} to {kind.max}")
    if isinstance(kind, click.FloatRange):
        least = f"above {kind.min}" if kind.min_open else f"from {kind.min} on"
        return _Kind((int, float), f"a number of seconds {least}")
    if isinstance(kind, click.Choice):
        return _Kind((str,), f"one of {', '.join(map(repr, kind.choices))}")
    if isinstance(kind, Size):
        return _Kind((int, str), "a number of bytes, or a size such as '500M'")
    if isinstance(kind, Mode):  # 660 would be a decimal number in TOML
        return _Kind((str,), "a string such as '0660', with the owner's 0600")
    if parameter.name == "uds_group":
        return _Kind((str, int), "the name or the number of a group")
    return _Kind((str,), "a string")


def _has_strings(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and all(isinstance(each, str) for each in value)
    )


def _converted(parameter: click.Parameter, value: Any) -> Any:
    """Raises ValueError with what follows the key in an error."""
    if parameter.name == "options":
        return _options(value)
    kind = _kind_of(parameter)
    refusal = ValueError(f"has to be {kind.text}, not {json.dumps(value, default=str)}")
    if parameter.name == "targets":
        if not _has_strings(value):
            raise refusal
        return (value,) if isinstance(value, str) else tuple(value)
    if not isinstance(value, kind.types) or (isinstance(value, bool) and bool not in kind.types):
        raise refusal
    if isinstance(value, float) and not math.isfinite(value):
        raise refusal
    try:
        return parameter.type.convert(value, parameter, None)
    except click.BadParameter:
        raise refusal from None


def _options(value: Any) -> Pairs:
    """Return pairs from a table of options, or from strings `KEY=VALUE`."""
    try:
        if isinstance(value, dict):
            pairs = tuple(_flat(value))
            parse_options(pairs)
            return pairs
        if _has_strings(value):
            return pairs_of([value] if isinstance(value, str) else value)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"has a mistake: {error}") from None
    raise ValueError("has to be a table of options, or a list of strings such as 'KEY=VALUE'")


def _flat(table: dict[str, Any], head: str = "") -> Iterator[tuple[str, Any]]:
    """Yield `localrpc.window` for `{localrpc: {window: ...}}`, which TOML makes of it."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{head}{key}.")
        else:
            yield f"{head}{key}", int(value) if isinstance(value, bool) else value

"""KEY=VALUE on the command line, for options of channels and servers."""

from __future__ import annotations

from typing import Any

import click

from localrpc.options import parse_options


def pairs(
    context: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> tuple[tuple[str, Any], ...]:
    """Return the pairs of an option that may be repeated, with numbers as int.

    Raises BadParameter for a text of another form, and for what no channel or server takes.
    """
    found: list[tuple[str, Any]] = []
    for text in value:
        key, equals, setting = text.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE")
        try:
            found.append((key, int(setting)))
        except ValueError:
            found.append((key, setting))
    try:
        parse_options(found)
    except (ValueError, TypeError, OverflowError) as error:
        raise click.BadParameter(str(error)) from None
    return tuple(found)

"""KEY=VALUE on the command line, for options of channels and servers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from localrpc.options import parse_options

Pairs = tuple[tuple[str, Any], ...]


def pairs_of(texts: Iterable[str]) -> Pairs:
    """Return options of channels and servers from texts `KEY=VALUE`, with numbers as int.

    Raises ValueError, TypeError or OverflowError.
    """
    found: list[tuple[str, Any]] = []
    for text in texts:
        key, equals, setting = text.partition("=")
        if not key or not equals:
            raise ValueError(f"{text!r} is not KEY=VALUE")
        try:
            found.append((key, int(setting)))
        except ValueError:
            found.append((key, setting))
    parse_options(found)
    return tuple(found)


def pairs(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> Pairs:
    """Return the pairs of an option that may be repeated. Raises BadParameter."""
    try:
        return pairs_of(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise click.BadParameter(str(error)) from None

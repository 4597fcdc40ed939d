"""Types of the parameters of `localrpc serve`, and the environment variables of each."""

from __future__ import annotations

import os
import re
from typing import Any

import click
from click.core import ParameterSource


class Size(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    name = "size"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        match = re.fullmatch(r"([0-9]{1,12})(?:([kKmMgG])(?:i?[bB])?)?", str(value))
        if match is None:
            self.fail(f"{value!r} is not a size such as 500M or 2G", param, ctx)
        return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[(match[2] or "").lower()]


class Mode(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    name = "mode"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        match = re.fullmatch("(?:0o)?0?([67][0-7]{2})", str(value))
        if match is None:
            self.fail(f"{value!r} is not a mode such as 0660, with the owner's 0600", param, ctx)
        return int(match[1], 8)


class Command(click.Command):
    """Its errors name the environment variable that a wrong value comes from."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.BadParameter as error:
            wrong = error.param
            if wrong is None or wrong.name is None:
                raise
            if ctx.get_parameter_source(wrong.name) is not ParameterSource.ENVIRONMENT:
                raise
            (variable, *_) = [each for each in variables(ctx, wrong) if os.environ.get(each)]
            raise click.BadParameter(f"{error.message} (from {variable})", ctx, wrong) from None


def variables(context: click.Context, parameter: click.Parameter) -> list[str]:
    """Return the environment variables of a parameter, the one that counts first."""
    if parameter.envvar:
        return [parameter.envvar] if isinstance(parameter.envvar, str) else [*parameter.envvar]
    assert parameter.name is not None
    return [f"{context.auto_envvar_prefix}_{parameter.name.upper()}"]

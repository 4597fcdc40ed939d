"""Options that the commands share: where results are written, and how they are judged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console, RenderableType

from localrpc.bench import compare as comparing
from localrpc.bench.output import Outputs

# For a pipe, which has no width.
_WIDE = 140

F = TypeVar("F", bound=Callable[..., Any])


def output_options(command: F) -> F:
    for name, metavar, what in reversed(
        (
            ("--csv", "FILE", "Write the figures to FILE."),
            ("--markdown", "FILE", "Write a table for a README to FILE."),
            (
                "--report",
                "FILE.html",
                "Write a report to FILE.html: one file that needs no network.",
            ),
            ("--plots", "DIR", "Draw plots into DIR, as PNG and SVG."),
        )
    ):
        directory = metavar == "DIR"
        kind = click.Path(dir_okay=directory, file_okay=not directory, path_type=Path)
        command = click.option(name, type=kind, metavar=metavar, help=what)(command)
    return command


def comparison_options(command: F) -> F:
    for option in (
        click.option(
            "--fail-on",
            type=click.Choice(["regression", "change", "never"]),
            default="regression",
            show_default=True,
            help="Which changes beyond the noise make the exit code of the comparison 1.",
        ),
        click.option(
            "--threshold",
            type=click.FloatRange(0),
            default=comparing.THRESHOLD * 100,
            show_default=True,
            metavar="PERCENT",
            help="Treat smaller changes as noise.",
        ),
        click.option(
            "--confidence",
            type=click.FloatRange(0.5, 0.9999),
            default=comparing.CONFIDENCE,
            show_default=True,
            help="Confidence of the test. 0.99 needs five rounds on each side, 0.9 three.",
        ),
    ):
        command = option(command)
    return command


def ready(outputs: Outputs) -> Outputs:
    """Check before the run what would fail after it."""
    if lacks := outputs.lacks():
        raise click.ClickException(f"this output needs {lacks}: pip install 'localrpc[bench]'")
    try:
        outputs.check()
    except OSError as error:
        raise click.ClickException(str(error)) from None
    return outputs


def write(outputs: Outputs, document: dict[str, Any]) -> None:
    for file in outputs.write(document):
        click.echo(f"Wrote {file}", err=True)


def fails(comparison: comparing.Comparison, fail_on: str) -> bool:
    worse = comparison.count(comparing.Verdict.WORSE)
    better = comparison.count(comparing.Verdict.BETTER)
    return bool({"regression": worse, "change": worse + better, "never": 0}[fail_on])


_NO_COLOR = f"{__name__}.no_color"


def color_option(command: F) -> F:
    def refuse(context: click.Context, _: click.Parameter, asked: bool) -> None:
        if asked:
            context.meta[_NO_COLOR] = True

    return click.option(
        "--no-color",
        is_flag=True,
        # Before --list, which prints.
        is_eager=True,
        expose_value=False,
        callback=refuse,
        help="Do not use colours; the same as NO_COLOR, and the default for files and pipes.",
    )(command)


def console(*, stderr: bool = False, width: int | None = None) -> Console:
    plain = click.get_current_context().meta.get(_NO_COLOR)
    return Console(stderr=stderr, width=width, no_color=plain)


def show(what: RenderableType) -> None:
    found = console()
    console(width=None if found.is_terminal else max(_WIDE, found.width)).print(what)

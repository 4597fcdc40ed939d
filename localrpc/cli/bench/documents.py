"""The commands for documents that --json has written: `report` and `compare`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from localrpc.bench import compare as comparing
from localrpc.bench.document import Document, UnreadableDocument, load
from localrpc.bench.measures import MEASURES
from localrpc.bench.output import Outputs

from .outcome import color_option, comparison_options, fails, output_options, ready, show, write


@click.command("report")
@click.argument("results", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@output_options
def report_(*, results: Path, **files: Path | None) -> None:
    """Make a report, plots or tables of RESULTS, which --json has written."""
    outputs = ready(Outputs(**files))
    if not outputs:
        raise click.UsageError("choose an output: --report, --plots, --markdown or --csv")
    write(outputs, _load(results).raw)


@click.command("compare")
@click.argument("before", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@click.argument("after", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@click.option(
    "--figure",
    "figures",
    type=click.Choice(list(MEASURES)),
    multiple=True,
    metavar="FIGURE",
    help=f"The figure to compare: {', '.join(MEASURES)}. Default:"
    f" {', '.join(comparing.COMPARED)}. May be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@comparison_options
@color_option
def compare_(
    *,
    before: Path,
    after: Path,
    figures: tuple[str, ...],
    as_json: bool,
    fail_on: str,
    threshold: float,
    confidence: float,
) -> None:
    """Show what changed between two runs, and whether it is more than noise.

    The exit code is 1 if a figure became worse by more than the noise, and 0 otherwise.
    """
    comparison = comparing.compare(
        _load(before),
        _load(after),
        confidence=confidence,
        threshold=threshold / 100,
        figures=figures or comparing.COMPARED,
    )
    if as_json:
        click.echo(json.dumps(comparing.as_json(comparison), indent=1))
    else:
        show(comparing.render(comparison))
    if fails(comparison, fail_on):
        sys.exit(1)


def _load(path: Path) -> Document:
    try:
        return load(path)
    except UnreadableDocument as error:
        raise click.ClickException(str(error)) from None

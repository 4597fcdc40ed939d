"""`localrpc doctor`: checks this machine's limits and features, and suggests fixes."""

from __future__ import annotations

import json
import sys

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from localrpc.bench.checks import Finding, Verdict, as_json, examine

_STYLES = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.PROBLEM: "bold red"}


@click.command()
@click.option("--json", "json_", is_flag=True, help="Print the findings as JSON.")
def doctor(*, json_: bool) -> None:
    """Check what this machine allows, what that means for each transport, and how to fix it.

    The exit code is 1 if there is a problem: something without which localrpc does not work, or
    shm: works without shared memory. A warning concerns some transports, or their speed.
    """
    findings = examine()
    if json_:
        click.echo(json.dumps(as_json(findings), indent=1))
    else:
        Console().print(_table(findings))
    if any(finding.verdict is Verdict.PROBLEM for finding in findings):
        sys.exit(1)


def _table(findings: list[Finding]) -> Table:
    table = Table(header_style="bold", pad_edge=False)
    table.add_column("check", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("found", ratio=2)
    table.add_column("what it means", ratio=3)
    for finding in findings:
        meaning = Text(finding.meaning)
        if finding.fix:
            meaning.append(f"\nFix: {finding.fix}" if finding.meaning else finding.fix)
        table.add_row(
            finding.name,
            Text(finding.verdict.value, style=_STYLES[finding.verdict]),
            Text(finding.found),
            meaning,
        )
    return table

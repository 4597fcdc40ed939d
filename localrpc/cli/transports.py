"""`localrpc transports`: the ways to talk, and what this machine has for them."""

from __future__ import annotations

import dataclasses
import json

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

import localrpc

# What the table needs: lines that a narrow terminal wraps say more than columns cut off.
_WIDTH = 150


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def transports(*, as_json: bool) -> None:
    """List every kind of target: scope, technique, credentials, limits as they are now."""
    if as_json:
        click.echo(_json())
    else:
        Console(width=max(_WIDTH, Console().width)).print(_table())


def _json() -> str:
    facts = [
        dataclasses.asdict(offer)
        | {"scheme": offer.scheme, "scope": offer.scope.value, "available": offer.available}
        for offer in localrpc.transports()
    ]
    return json.dumps(facts, indent=1)


def _table() -> Table:
    table = Table(
        caption="Without copy: messages get across without a copy by the kernel. -1: no limit.",
        caption_justify="left",
        header_style="bold",
        pad_edge=False,
        show_lines=True,
    )
    table.add_column("target", no_wrap=True, style="cyan")
    for column in ("between", "how", "direction", "without copy", "known of the peer"):
        table.add_column(column)
    table.add_column("limits now", min_width=32)
    for offer in localrpc.transports():
        limits = "\n".join(f"{name} {value:,}" for name, value in offer.limits.items())
        table.add_row(
            offer.target,
            offer.scope.value,
            offer.technique,
            offer.direction,
            "yes" if offer.zero_copy else "no",
            offer.credentials,
            Text(f"not available: {offer.missing}", style="red") if offer.missing else limits,
        )
    return table

"""`localrpc transports`: lists the transports, and this machine's limits for them."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap

import click

import localrpc

_COLUMN = 15
_NARROWEST = 20
_NOTE = "Without copy: the kernel does not copy messages. -1: no limit."


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def transports(*, as_json: bool) -> None:
    """List every kind of target: scope, technique, credentials, and present limits."""
    if as_json:
        click.echo(_json())
    else:
        wraps = sys.stdout.isatty() or os.environ.get("COLUMNS")
        click.echo(_blocks(shutil.get_terminal_size().columns if wraps else None))


def _json() -> str:
    facts = [
        offer._asdict()
        | {"scheme": offer.scheme, "scope": offer.scope.value, "available": offer.available}
        for offer in localrpc.transports()
    ]
    return json.dumps(facts, indent=1)


def _blocks(width: int | None) -> str:
    """Return a paragraph per kind of target, wrapped to `width`; None means no wrapping."""
    blocks = []
    for offer in localrpc.transports():
        rows = [
            ("between", offer.scope.value),
            ("how", offer.technique),
            ("direction", offer.direction),
            ("without copy", "yes" if offer.zero_copy else "no"),
            ("peer", offer.credentials),
        ]
        limits = "; ".join(_together(f"{name} {value:,}") for name, value in offer.limits.items())
        if offer.missing:
            rows.append(("not available", offer.missing))
        elif limits:
            rows.append(("limits now", limits))
        if offer.served:
            rows.append(("served now", ", ".join(offer.served)))
        lines = [click.style(offer.target, fg="cyan", bold=True)]
        for name, text in rows:
            lines += _row(name, text, width, color="red" if name == "not available" else None)
        blocks.append("\n".join(lines))
    note = textwrap.fill(_NOTE, max(width, _NARROWEST)) if width else _NOTE
    return "\n\n".join([*blocks, note])


def _together(text: str) -> str:
    """Keep a limit and its value in one line: textwrap does not break at such a space."""
    return text.replace(" ", "\xa0")


def _apart(text: str) -> str:
    return text.replace("\xa0", " ")


def _row(name: str, text: str, width: int | None, color: str | None) -> list[str]:
    head = f"  {name:<{_COLUMN}}"
    room = max(width - len(head), _NARROWEST) if width else 0
    parts = textwrap.wrap(text, room, break_on_hyphens=False) if room else [text]
    heads = [head, *[" " * len(head)] * len(parts)]
    return [
        head + _apart(click.style(part, fg=color) if color else part)
        for head, part in zip(heads, parts, strict=False)
    ]

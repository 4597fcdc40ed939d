"""`localrpc describe`: prints definitions as in a .proto file."""

from __future__ import annotations

from typing import Any

import click

from localrpc.cli.rpc import completion
from localrpc.cli.rpc.options import (
    connection_options,
    open_connection,
    read_schema,
    schema_options,
)


@click.command(short_help="Show services, methods and messages as in a .proto file.")
@click.argument("target", shell_complete=completion.targets)
@click.argument("symbols", nargs=-1, metavar="[SYMBOL]...", shell_complete=completion.symbols)
@connection_options
@schema_options
def describe(symbols: tuple[str, ...], **options: Any) -> None:
    """Print the definitions of SYMBOLs and of all types they use; without SYMBOL, of everything.

    A SYMBOL is a service, a method, a message or an enum of the server at TARGET. Types of
    google.protobuf are printed only if they are SYMBOLs.
    """
    from localrpc.cli.rpc.output import described
    from localrpc.cli.rpc.schema import types_of
    from localrpc.cli.rpc.text import text_of

    with open_connection(options) as connection:
        schema = read_schema(options, connection)
        roots = [*map(schema.symbol, symbols)] if symbols else [*described(schema)]
        texts = dict.fromkeys(text_of(each) for each in [*roots, *types_of(*roots)])
        click.echo("\n\n".join(texts))

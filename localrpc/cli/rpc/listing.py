"""`localrpc list`: the services of a server, or the methods of one."""

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
from localrpc.cli.rpc.output import described


@click.command("list", short_help="List the services of a server, and their methods.")
@click.argument("target", shell_complete=completion.targets)
@click.argument("service", required=False, shell_complete=completion.services)
@click.option("-m", "--methods", is_flag=True, help="List the methods of every service.")
@connection_options
@schema_options
def list_services(service: str | None, methods: bool, **options: Any) -> None:
    """Print the services of the server at TARGET, or the methods of one SERVICE, one per line."""
    with open_connection(options) as connection:
        schema = read_schema(options, connection)
        if service is None and not methods:
            names = schema.services()
        else:
            found = [schema.service(service)] if service else described(schema)
            names = [f"{each.full_name}/{method.name}" for each in found for method in each.methods]
        for name in names:
            click.echo(name)

"""Options that the commands share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import click

from localrpc.cli.rpc.connection import Connection, connected
from localrpc.cli.rpc.schema import Schema

F = TypeVar("F", bound=Callable[..., Any])

_PATH = click.Path(path_type=Path)
_CONNECTION = (
    click.option(
        "-H",
        "--header",
        "headers",
        multiple=True,
        metavar="KEY:VALUE",
        help="Metadata to send, for reflection, too. The value of a key that ends with -bin is"
        " base64. May be repeated.",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(0, min_open=True),
        metavar="SECONDS",
        help="Time limit for the whole command. Default: no limit.",
    ),
    click.option(
        "--worker",
        type=click.IntRange(1),
        metavar="N",
        help="Connect to this worker of `localrpc serve`, by its number, instead of any.",
    ),
    click.option("--tls", is_flag=True, help="Use TLS; for grpc: targets."),
    click.option("--ca", type=_PATH, metavar="FILE", help="Trust these certificates; implies TLS."),
)
_SCHEMA = (
    click.option(
        "--proto",
        "protos",
        multiple=True,
        type=_PATH,
        metavar="FILE",
        help="Read services from a .proto file instead of server reflection. May be repeated.",
    ),
    click.option(
        "--proto-dir",
        "folders",
        multiple=True,
        type=_PATH,
        metavar="DIR",
        help="Where imports are searched; without --proto, read every .proto file below it.",
    ),
    click.option(
        "--module",
        "modules",
        multiple=True,
        metavar="NAME",
        help="Read services from a Python module of generated messages, such as"
        " greeter.greeter_pb2.",
    ),
)


def connection_options(command: F) -> F:
    for option in reversed(_CONNECTION):
        command = option(command)
    return command


def schema_options(command: F) -> F:
    for option in reversed(_SCHEMA):
        command = option(command)
    return command


def open_connection(options: dict[str, Any]) -> AbstractContextManager[Connection]:
    """Open the connection that connection_options describe."""
    wanted = ("headers", "timeout", "worker", "tls", "ca")
    return connected(options["target"], **{name: options[name] for name in wanted})


def read_schema(options: dict[str, Any], connection: Connection) -> Schema:
    """Return the schema that schema_options describe, by default from server reflection."""
    from localrpc.cli.rpc import sources

    if options["modules"] or options["protos"] or options["folders"]:
        return sources.read(options["protos"], options["folders"], options["modules"])
    from localrpc.cli.rpc.reflection import from_server

    return from_server(connection)

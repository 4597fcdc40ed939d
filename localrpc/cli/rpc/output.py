"""Prints messages as JSON on stdout, and the output of -v on stderr."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import click
from google.protobuf import json_format
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

from localrpc.cli.rpc.errors import Misuse
from localrpc.cli.rpc.schema import Schema


def json_of(message: Message, pool: DescriptorPool, *, defaults: bool = False) -> str:
    """Return a message as JSON. Raises ClickException if it cannot be shown as JSON."""
    try:
        value = json_format.MessageToDict(
            message, always_print_fields_with_no_presence=defaults, descriptor_pool=pool
        )
    except (TypeError, ValueError, json_format.SerializeToJsonError) as error:
        # An Any of an unknown type, or a timestamp out of its range.
        raise click.ClickException(
            f"a {message.DESCRIPTOR.full_name} that cannot be shown as JSON: {error}"
        ) from error
    return dumped(value)


def dumped(value: Any) -> str:
    """Return JSON in one line, or indented if stdout is a terminal."""
    return json.dumps(value, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False)


def described(schema: Schema) -> Iterator[ServiceDescriptor]:
    """Yield every service; warn of those that a server lists without a description."""
    for name in schema.services():
        try:
            yield schema.service(name)
        except Misuse as mistake:
            tell(f"Warning: {mistake.format_message()}")


def tell(line: str) -> None:
    click.echo(line, err=True)


def tell_metadata(sign: str, metadata: Iterable[tuple[str, Any]] | None) -> None:
    for key, value in metadata or ():
        text = base64.b64encode(value).decode() if isinstance(value, bytes) else value
        tell(f"{sign} {key}: {text}")

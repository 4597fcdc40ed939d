"""`localrpc call`: one call of any method, with JSON in and out."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from threading import Event
from time import perf_counter
from typing import Any

import click
import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from localrpc.cli.rpc import completion
from localrpc.cli.rpc.connection import Connection
from localrpc.cli.rpc.errors import CallFailed, Misuse
from localrpc.cli.rpc.options import (
    connection_options,
    open_connection,
    read_schema,
    schema_options,
)
from localrpc.cli.rpc.output import dumped, json_of, tell, tell_metadata


@click.command(short_help="Call a method, with JSON in and out.")
@click.argument("target", shell_complete=completion.targets)
@click.argument("method", metavar="SERVICE/METHOD", shell_complete=completion.methods)
@click.option(
    "-d",
    "--data",
    multiple=True,
    metavar="JSON|@FILE|-",
    help="The request, or a stream of requests: JSON objects in sequence, one per line, or in"
    " one array; - is stdin. Default: one empty request, or an empty stream.",
)
@click.option("--template", is_flag=True, help="Print a request to fill in, without calling.")
@click.option("--defaults", is_flag=True, help="Show fields that have their default value, too.")
@click.option("-v", "--verbose", is_flag=True, help="Show metadata and times, on stderr.")
@connection_options
@schema_options
def call(method: str, data: tuple[str, ...], template: bool, **options: Any) -> None:
    """Call a method of the server at TARGET, and print each answer as JSON.

    The services of the server are found by server reflection, unless --proto, --proto-dir or
    --module is given. An answer is printed in one line; on a terminal it is indented.

    \b
        localrpc call shm:greeter demo.Greeter/Greet \\
            -d '{"name": "Ada"}'
        localrpc call unix:/run/shop Shop/Upload -d @list.json
        localrpc call grpc:localhost:50051 Chat/Talk \\
            --proto chat.proto -d -

    The exit code is 0 for OK, 64 plus the status code for a failed call (UNAVAILABLE: 78), and
    2 for an error in the command or the request.
    """
    began = perf_counter()
    with open_connection(options) as connection:
        schema = read_schema(options, connection)
        found = schema.method(method)
        if template:
            from localrpc.cli.rpc.template import template_of

            click.echo(dumped(template_of(found.input_type)))
            return
        known = perf_counter()
        made = Call(connection, found, schema.pool, data)
        if options["verbose"]:
            tell(f"> {made.path}")
            tell_metadata(">", connection.metadata)
        try:
            for answer in made.answers():
                click.echo(json_of(answer, schema.pool, defaults=options["defaults"]))
        finally:
            if options["verbose"]:
                made.report(known - began)
        made.check()


class Call:
    """One call, of any kind."""

    def __init__(
        self,
        connection: Connection,
        method: MethodDescriptor,
        pool: DescriptorPool,
        data: tuple[str, ...],
    ) -> None:
        from localrpc.cli.rpc.requests import requests_of

        self.path = f"/{method.containing_service.full_name}/{method.name}"
        self._connection = connection
        self._method = method
        self._requests = requests_of(data, method.input_type, pool)
        self._given = bool(data)
        self._call: Any = None
        self._started = Event()
        self._mistake: Misuse | None = None
        self._sent = 0
        self._received = 0
        self._began = 0.0
        self._first: float | None = None
        self._ended = 0.0

    def answers(self) -> Iterator[Message]:
        """Make the call. Raises Misuse for a bad request; check() tells how the call ended."""
        method = self._method
        kinds = {True: "stream", False: "unary"}
        kind = f"{kinds[method.client_streaming]}_{kinds[method.server_streaming]}"
        make = getattr(self._connection.channel, kind)(
            self.path,
            request_serializer=GetMessageClass(method.input_type).SerializeToString,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        given: Any = self._stream() if method.client_streaming else self._single()
        start = make if method.server_streaming else make.future
        self._began = perf_counter()
        self._call = start(
            given, timeout=self._connection.time_left(), metadata=self._connection.metadata
        )
        self._started.set()
        try:
            for answer in self._call if method.server_streaming else self._result():
                self._first = self._first or perf_counter()
                self._received += 1
                yield answer
        except (grpc.RpcError, grpc.FutureCancelledError):
            pass  # check() has the same status
        finally:
            self._ended = perf_counter()
            self._call.cancel()

    def check(self) -> None:
        """Raise Misuse or CallFailed unless the call ended with OK."""
        if self._mistake is not None:
            raise self._mistake
        if self._call.code() is not grpc.StatusCode.OK:
            raise CallFailed(self._call.code(), self._call.details())

    def report(self, preparation: float) -> None:
        """Print metadata and times."""
        if self._call is None:
            return
        tell_metadata("<", self._call.initial_metadata())
        tell_metadata("<<", self._call.trailing_metadata())
        code = self._call.code()
        first = f", the first after {_ms(self._first - self._began)}" if self._first else ""
        tell(
            f"* {code.name}: requests: {self._sent}, answers: {self._received}{first}; "
            f"descriptors {_ms(preparation)}, call {_ms(self._ended - self._began)}"
        )

    def _single(self) -> Message:
        self._sent = 1
        if not self._given:
            return GetMessageClass(self._method.input_type)()
        found = list(islice(self._requests, 2))
        if len(found) != 1:
            number = "more than one request" if found else "no request"
            raise Misuse(f"{self.path} takes one request, and -d has {number}")
        return found[0]

    def _stream(self) -> Iterator[Message]:
        # In a thread of the channel, which would log an exception.
        try:
            for request in self._requests:
                self._sent += 1
                yield request
        except Misuse as mistake:
            self._mistake = mistake
            # Do not end the stream: the server would take the requests so far for all of them.
            self._started.wait()
            self._call.cancel()

    def _result(self) -> Iterator[Message]:
        yield self._call.result()


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"

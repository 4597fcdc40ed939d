"""`localrpc proxy`: passes the calls that come to one target on to another one."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import click
import grpc

from localrpc.cli._pairs import pairs
from localrpc.cli.rpc import completion
from localrpc.cli.rpc.connection import channel_credentials
from localrpc.cli.rpc.errors import Misuse
from localrpc.errors import AddressInUse, LocalrpcError
from localrpc.workers import logs

_IN_USE = 4
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command(context_settings={"auto_envvar_prefix": "LOCALRPC_PROXY"})
@click.argument("listen", shell_complete=completion.places)
@click.argument("target", shell_complete=completion.targets)
@click.option(
    "--grace",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long calls in progress may take at the end.",
)
@click.option(
    "--option",
    "options",
    multiple=True,
    callback=pairs,
    envvar=["LOCALRPC_PROXY_OPTION", "LOCALRPC_PROXY_OPTIONS"],
    metavar="KEY=VALUE",
    help="An option of the server at LISTEN and the channel to TARGET, such as"
    " localrpc.server_user=greeter. May be repeated.",
)
@click.option(
    "--cert",
    type=_FILE,
    metavar="FILE",
    help="The certificate chain for TLS at a LISTEN that is a grpc: target, with --key.",
)
@click.option("--key", type=_FILE, metavar="FILE", help="Its private key.")
@click.option(
    "--client-ca",
    type=_FILE,
    metavar="FILE",
    help="Serve only clients that have a certificate of these authorities.",
)
@click.option("--tls", is_flag=True, help="Use TLS to a TARGET that is a grpc: target.")
@click.option(
    "--ca", type=_FILE, metavar="FILE", help="Trust these certificates there; implies --tls."
)
@click.option(
    "--log-level",
    type=click.Choice(logs.LEVELS),
    default="info",
    show_default=True,
    help="What is logged, to stderr.",
)
@click.option("--log-json", is_flag=True, help="Log a JSON object a line.")
def proxy(
    listen: str,
    target: str,
    grace: float,
    options: tuple[tuple[str, Any], ...],
    log_level: str,
    log_json: bool,
    **files: Any,
) -> None:
    """Serve at LISTEN, and pass every call on to the server at TARGET.

    gRPC clients in any language reach a local server so, and local clients one on another
    machine. The services need not be known; reflection and health are those of the server.

    \b
        localrpc proxy grpc:0.0.0.0:50051 shm:greeter
        localrpc proxy grpc:0.0.0.0:443 shm:greeter \\
            --cert chain.pem --key key.pem
        localrpc proxy shm:greeter grpc:example.org:443 --tls

    The server sees the proxy's user in place of its clients: what reaches LISTEN may do what
    that user may. SIGTERM and SIGINT end it once the calls in progress have ended, a second
    one at once.

    The exit code is 0 after SIGTERM or SIGINT, 128 and the signal's number after a second
    one, 4 if another server is at LISTEN, 2 for an error on the command line, 1 for any other.
    """
    from localrpc.proxy import process

    server_credentials = _server_credentials(
        listen, files["cert"], files["key"], files["client_ca"]
    )
    credentials = _channel_credentials(target, files["tls"], files["ca"])
    try:
        settings = process.Settings(listen, target, grace, options, server_credentials, credentials)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    logs.set_up(log_level, as_json=log_json, may_block=True)
    if log_level != "debug":  # the proxy says itself where it listens
        logging.getLogger("localrpc.server").setLevel(logging.WARNING)
    try:
        code = process.run(settings)
    except AddressInUse as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(_IN_USE)
    except LocalrpcError as error:
        raise click.ClickException(str(error)) from None
    sys.exit(code)


def _channel_credentials(target: str, tls: bool, ca: Path | None) -> grpc.ChannelCredentials | None:
    try:
        return channel_credentials(target, tls, ca)
    except OSError as error:
        raise Misuse(str(error)) from error


def _server_credentials(
    listen: str, cert: Path | None, key: Path | None, client_ca: Path | None
) -> grpc.ServerCredentials | None:
    if cert is None and key is None and client_ca is None:
        return None
    if not listen.startswith("grpc:"):
        raise Misuse(f"{listen} is a local target and has no TLS: omit --cert, --key, --client-ca")
    if cert is None or key is None:
        raise Misuse("TLS needs a certificate and its key: give both --cert and --key")
    try:
        return grpc.ssl_server_credentials(
            [(key.read_bytes(), cert.read_bytes())],
            None if client_ca is None else client_ca.read_bytes(),
            require_client_auth=client_ca is not None,
        )
    except OSError as error:
        raise Misuse(str(error)) from error

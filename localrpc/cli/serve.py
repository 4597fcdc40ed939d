"""`localrpc serve`: serves an application with worker processes."""

from __future__ import annotations

import re
import sys
from typing import Any

import click

from localrpc.cli._pairs import pairs
from localrpc.errors import AddressInUse, LocalrpcError
from localrpc.workers import logs
from localrpc.workers.settings import Settings
from localrpc.workers.supervisor import Supervisor

_IN_USE = 4


class _Size(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    name = "size"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        match = re.fullmatch(r"([0-9]{1,12})(?:([kKmMgG])(?:i?[bB])?)?", str(value))
        if match is None:
            self.fail(f"{value!r} is not a size such as 500M or 2G", param, ctx)
        return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[(match[2] or "").lower()]


_SIZE = _Size()


class _Mode(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    name = "mode"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        match = re.fullmatch("(?:0o)?0?([0-7]{3})", str(value))
        if match is None:
            self.fail(f"{value!r} is not a mode such as 0660", param, ctx)
        return int(match[1], 8)


@click.command(context_settings={"auto_envvar_prefix": "LOCALRPC_SERVE"})
@click.argument("app", metavar="MODULE:NAME")
@click.option(
    "--target",
    "targets",
    multiple=True,
    required=True,
    envvar=["LOCALRPC_SERVE_TARGET", "LOCALRPC_SERVE_TARGETS"],
    metavar="TARGET",
    help="Where to serve, such as shm:greeter. May be repeated.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    metavar="N",
    help="Processes that serve.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 10000),
    default=10,
    show_default=True,
    metavar="N",
    help="Threads of each worker, for synchronous handlers.",
)
@click.option(
    "--grace",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long calls in progress may take when a worker ends.",
)
@click.option(
    "--boot-timeout",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a worker may take to start.",
)
@click.option(
    "--max-memory",
    type=_SIZE,
    default="0",
    metavar="SIZE",
    help="Replace a worker that uses more memory of its own than this, such as 500M.",
)
@click.option(
    "--reload", is_flag=True, help="Replace the workers when a .py file changes: for development."
)
@click.option(
    "--option",
    "options",
    multiple=True,
    callback=pairs,
    envvar=["LOCALRPC_SERVE_OPTION", "LOCALRPC_SERVE_OPTIONS"],
    metavar="KEY=VALUE",
    help="An option of the servers, such as localrpc.allow_users=*. May be repeated.",
)
@click.option(
    "--uds-mode",
    type=_Mode(),
    metavar="OCTAL",
    help="The mode of the sockets' files. Default: 0600; 0660 with --uds-group; 0666 if the options"
    " allow other users.",
)
@click.option(
    "--uds-group",
    metavar="NAME|GID",
    help="The group of the sockets' files, which may then call the servers.",
)
@click.option(
    "--app-dir", default=".", metavar="DIR", help="Where modules are looked up. Default: here."
)
@click.option("--health/--no-health", default=True, help="Add the health service. Default: yes.")
@click.option(
    "--reflection/--no-reflection", default=True, help="Add server reflection. Default: yes."
)
@click.option(
    "--log-level",
    type=click.Choice(logs.LEVELS),
    default="info",
    show_default=True,
    help="What is logged, to stderr.",
)
@click.option("--log-json", is_flag=True, help="Log a JSON object a line.")
def serve(log_level: str, log_json: bool, **values: Any) -> None:
    """Serve MODULE:NAME with worker processes.

    NAME is a servicer's class, or a function, `async` or not, that is given the server:

    \b
        localrpc serve greeter:Greeter --target shm:greeter
        localrpc serve app.main:setup --workers 4 \\
            --target unix:/run/app.sock --target shm:app

    SIGTERM and SIGINT end it once the calls in progress have ended, a second one at once.
    SIGHUP replaces the workers by new ones, which load the code anew, and no call fails;
    SIGTTIN and SIGTTOU add and remove one; SIGUSR2 replaces the supervisor itself.

    The exit code is 0 after SIGTERM or SIGINT, 128 and the signal's number after a second
    one, 3 if a worker could not start, 4 if another server has a target, 2 for an error on
    the command line, 1 for any other.
    """
    try:
        settings = Settings(log_level=log_level, log_json=log_json, **values)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    try:
        supervisor = Supervisor(settings)
    except ModuleNotFoundError as error:
        if error.name != "watchfiles":
            raise
        raise click.ClickException(
            "--reload needs watchfiles: pip install 'localrpc[serve]'"
        ) from None
    except AddressInUse as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(_IN_USE)
    except LocalrpcError as error:
        raise click.ClickException(str(error)) from None
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    logs.set_up(log_level, as_json=log_json, may_block=False)
    sys.exit(supervisor.run())

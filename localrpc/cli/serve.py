"""`localrpc serve`: serves an application with worker processes."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import click

from localrpc.cli._pairs import pairs
from localrpc.cli._serve_settings import settings_of
from localrpc.cli._serve_types import Command, Mode, Size
from localrpc.errors import AddressInUse, LocalrpcError
from localrpc.workers import access, logs
from localrpc.workers.supervisor import Supervisor

_logger = logging.getLogger("localrpc.serve")
_IN_USE = 4


@click.command(cls=Command, context_settings={"auto_envvar_prefix": "LOCALRPC_SERVE"})
@click.argument("app", metavar="[MODULE:NAME]", required=False, envvar="LOCALRPC_SERVE_APP")
@click.option(
    "--target",
    "targets",
    multiple=True,
    envvar=["LOCALRPC_SERVE_TARGETS", "LOCALRPC_SERVE_TARGET"],
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
    type=Size(),
    default="0",
    metavar="SIZE",
    help="Replace a worker that uses more memory of its own than this, such as 500M.",
)
@click.option(
    "--max-requests",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Replace a worker after so many calls, or up to a tenth more. Default: never.",
)
@click.option(
    "--watchdog",
    type=click.FloatRange(0),
    default=0.0,
    metavar="SECONDS",
    help="Kill and replace a worker that runs no Python code, or not its event loop, for so long."
    " Default: never.",
)
@click.option(
    "--preload/--no-preload",
    default=False,
    help="Import the application once, and fork the workers from that process. Default: no.",
)
@click.option(
    "--reload/--no-reload",
    default=False,
    help="Replace the workers when a .py file changes: for development. Default: no.",
)
@click.option(
    "--option",
    "options",
    multiple=True,
    callback=pairs,
    envvar=["LOCALRPC_SERVE_OPTIONS", "LOCALRPC_SERVE_OPTION"],
    metavar="KEY=VALUE",
    help="An option of the servers, such as localrpc.allow_users=*. May be repeated.",
)
@click.option(
    "--uds-mode",
    type=Mode(),
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
@click.option(
    "--log-json/--no-log-json", default=False, help="Log a JSON object a line. Default: no."
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where settings are read that are not given. Default: the nearest pyproject.toml.",
)
@click.option("--no-config", is_flag=True, help="Read no file.")
@click.pass_context
def serve(context: click.Context, /, **_: Any) -> None:
    """Serve MODULE:NAME with worker processes.

    NAME is a servicer's class, or a function, `async` or not, that is given the server:

    \b
        localrpc serve greeter:Greeter --target shm:greeter
        localrpc serve app.main:setup --workers 4 \\
            --target unix:/run/app.sock --target shm:app

    Settings that are not given here are taken from the environment, such as
    LOCALRPC_SERVE_WORKERS=4, then from [tool.localrpc.serve] in the pyproject.toml of this folder
    or the first above that has one: app, targets, workers and so on.

    SIGTERM and SIGINT end it once the calls in progress have ended, a second one at once.
    SIGHUP replaces the workers by new ones, which load the code anew, and no call fails;
    SIGTTIN and SIGTTOU add and remove one; SIGUSR2 replaces the supervisor itself.

    The exit code is 0 after SIGTERM or SIGINT, 128 and the signal's number after a second
    one, 3 if a worker could not start, 4 if another server has a target, 2 for an error in
    the settings, 1 for any other.
    """
    settings, path = settings_of(context)
    try:
        supervisor = Supervisor(settings, trial=_trial(), is_alone=True)
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
    logs.set_up(settings.log_level, as_json=settings.log_json, may_block=False)
    if path is not None:
        _logger.info("settings of %s", path)
    sys.exit(supervisor.run())


def _trial() -> str:
    """Return a program that ends with an error if this command could not be started again."""
    arguments = sys.argv[sys.argv.index("serve") + 1 :] if "serve" in sys.argv else []
    return f"from localrpc.cli.serve import check\ncheck({arguments!r})"


def check(arguments: list[str]) -> None:
    """Exit with an error on stderr if these arguments or what they refer to have a mistake."""
    try:
        with serve.make_context("localrpc serve", arguments) as context:
            settings, _ = settings_of(context)
        access.resolved(settings)[0].dump()
    except (click.ClickException, ValueError) as error:
        sys.exit(error.format_message() if isinstance(error, click.ClickException) else str(error))

"""The table of subcommands, and the group that loads one only when it is called."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import click

from localrpc.cli._near import did_you_mean, near_to


@dataclass(frozen=True)
class Entry:
    """A subcommand: its place below `localrpc.cli`, and the extra that it needs."""

    place: str
    """MODULE:FUNCTION"""
    extra: str
    help: str


COMMANDS = {
    "bench": Entry("bench:bench", "bench", "Measure each transport, and grpcio beside it."),
    "call": Entry("rpc.call:call", "cli", "Call a method, with JSON in and out."),
    "describe": Entry(
        "rpc.describe:describe", "cli", "Show services, methods and messages as in a .proto file."
    ),
    "doctor": Entry(
        "doctor:doctor", "cli", "Check this machine's limits and features; suggest fixes."
    ),
    "health": Entry("rpc.health:health", "cli", "Print the health of a server."),
    "list": Entry("rpc.listing:list_services", "cli", "List a server's services and methods."),
    "ps": Entry(
        "processes.ps:ps", "cli", "List the servers and channels of this machine's processes."
    ),
    "proxy": Entry("proxy:proxy", "cli", "Pass calls on, as from the network to a local server."),
    "serve": Entry("serve:serve", "serve", "Serve an application with worker processes."),
    "top": Entry("processes.top:top", "cli", "Watch servers and channels at work."),
    "transports": Entry(
        "transports:transports", "cli", "List the transports and this machine's limits for them."
    ),
    "generate": Entry("generate:generate", "codegen", "Write typed Python for .proto files."),
}


class LazyGroup(click.Group):
    """Lists its commands from the table, so that `--help` imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        name, _, function = entry.place.partition(":")
        try:
            module = importlib.import_module(f"localrpc.cli.{name}")
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("localrpc."):
                raise
            raise click.ClickException(
                f"localrpc {cmd_name} needs {error.name}: pip install 'localrpc[{entry.extra}]'"
            ) from error
        command = getattr(module, function)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        # Leave a word that begins like an option to click, which refuses it.
        if name not in COMMANDS and name[:1].isalnum() and not ctx.resilient_parsing:
            hint = (
                did_you_mean(near_to(name, COMMANDS))
                or f"; the commands are {', '.join(sorted(COMMANDS))}"
            )
            ctx.fail(f"no such command {name!r}{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].help) for name in sorted(COMMANDS)])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="localrpc", prog_name="localrpc")
def commands() -> None:
    """gRPC's Python API over local IPC."""

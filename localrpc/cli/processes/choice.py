"""The options that say which servers and channels are listed."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import click
from click.shell_completion import CompletionItem

from localrpc.cli.processes.rows import live_targets
from localrpc.observe import processes


def live(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer what live servers and channels of this machine name."""
    found = sorted(live_targets(processes()))
    return [CompletionItem(target) for target in found if target.startswith(incomplete)]


_OPTIONS = (
    click.option(
        "--target",
        metavar="TARGET",
        shell_complete=live,
        help="Only servers and channels of this target, whatever their options.",
    ),
    click.option(
        "--pid",
        "pids",
        type=int,
        multiple=True,
        metavar="PID",
        help="Only this process. Repeatable.",
    ),
    click.option("--all", "ended", is_flag=True, help="Also those that have ended."),
)


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add them to a command, which gets `target`, `pids` and `ended`."""
    return reduce(lambda made, option: option(made), reversed(_OPTIONS), command)

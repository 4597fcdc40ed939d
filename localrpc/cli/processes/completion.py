"""What a shell offers for --target: what live servers and channels of this machine name."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from localrpc.cli.processes.rows import live_targets
from localrpc.observe import processes


def live(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    found = sorted(live_targets(processes()))
    return [CompletionItem(target) for target in found if target.startswith(incomplete)]

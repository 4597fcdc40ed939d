"""The `localrpc` command: one module per subcommand, loaded when it is called."""

from __future__ import annotations

import sys

NEEDS = "localrpc: the commands need click: pip install 'localrpc[cli]'"


def main() -> None:
    """The program `localrpc`."""
    try:
        from localrpc.cli._group import commands
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.exit(NEEDS)
    commands(prog_name="localrpc")

"""The `localrpc` command: one module per subcommand, loaded when it is called."""

from __future__ import annotations

import os
import sys

NEEDS = "localrpc: the commands need click: pip install 'localrpc[cli]'"


def main() -> None:
    """The program `localrpc`."""
    # A failed call is reported in one line; grpcio's core would log it as well.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        from localrpc.cli._group import commands
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.exit(NEEDS)
    commands(prog_name="localrpc")

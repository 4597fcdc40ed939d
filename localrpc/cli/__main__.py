"""`python -m localrpc.cli`."""

from __future__ import annotations

from localrpc.cli import main

main()

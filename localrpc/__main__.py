"""`python -m localrpc`."""

from __future__ import annotations

from localrpc.cli import main

if __name__ == "__main__":
    main()

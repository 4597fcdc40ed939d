"""`python -m localrpc`."""

from __future__ import annotations

import os
import sys


def _forget_current_folder() -> None:
    """Have the modules found that the program `localrpc` finds.

    `python -m` looks first in the current folder, where a file may have the name of one of them.
    """
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if sys.path and sys.path[0] == os.getcwd() != ours:
        del sys.path[0]


if __name__ == "__main__":
    _forget_current_folder()
    from localrpc.cli import main

    main()

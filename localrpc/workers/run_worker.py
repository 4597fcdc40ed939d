"""The program of a worker's process: `python .../run_worker.py APP TARGET...`, as `ps` shows it.

It imports nothing from the current folder, as `python -m` would: a file there may have the name of
a module that the worker needs. It imports the localrpc that it is a part of, which a supervisor
may have found in a folder that is not on sys.path here.
"""

from __future__ import annotations

import sys


def _forget_own_folder() -> None:
    """Remove from sys.path what Python has put there for the program: its folder."""
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        del sys.path[0]


def _import_own_package() -> None:
    import importlib.util
    import os

    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    spec = importlib.util.spec_from_file_location(
        "localrpc", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["localrpc"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


if __name__ == "__main__":  # and not in a child that multiprocessing spawns
    _forget_own_folder()
    _import_own_package()
    from localrpc.workers.worker import main

    sys.exit(main())

"""Libraries that have to be installed."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

from tests.skips import lack


def need(names: Iterable[str]) -> None:
    """Skip the test without these distributions, or fail where everything has to be there."""
    missing = [name for name in names if not _is_installed(name)]
    if missing:
        lack(f"needs {', '.join(missing)}: pip install '.[libraries]'")


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True

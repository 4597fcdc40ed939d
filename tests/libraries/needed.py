"""Libraries that have to be installed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib import metadata

import pytest


def need(names: Iterable[str]) -> None:
    """Skip the test without these distributions, or fail where everything has to be there."""
    missing = [name for name in names if not _is_installed(name)]
    if missing:
        text = f"needs {', '.join(missing)}: pip install '.[libraries]'"
        if os.environ.get("CI", "").lower() not in ("", "0", "false"):
            pytest.fail(text, pytrace=False)
        pytest.skip(text)


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True

"""The oldest versions of what localrpc needs, as pyproject.toml allows them, for this Python.

    python -m tests.oldest

prints them as arguments for pip, one a line; tests/run installs them.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from packaging.requirements import Requirement

tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("protobuf", "grpcio", "grpcio-tools", "grpcio-reflection")


def floors() -> dict[str, str]:
    """The version of each of PACKAGES, from the dependencies and the extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    found = {}
    for text in (*project["dependencies"], *extras["codegen"], *extras["cli"]):
        requirement = Requirement(text)
        if requirement.name in PACKAGES and (
            requirement.marker is None or requirement.marker.evaluate()
        ):
            (floor,) = requirement.specifier
            assert floor.operator == ">=", text
            found[requirement.name] = floor.version
    return found


if __name__ == "__main__":
    for name, version in floors().items():
        print(f"{name}=={version}")

"""Tools that tests need and the project does not depend on: how to find and install them.

    python3 -m tests.tools

prints the Debian packages of what is not on this machine. Needs nothing but Python,
because .ci/run asks before anything is installed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Find = Callable[[], "str | None"]


@dataclass(frozen=True)
class Tool:
    find: Find
    """Where it is; None if it is not on this machine."""
    install: str
    """What a person types to have it."""
    debian: tuple[str, ...] = ()
    """Packages of Debian's, for what Debian has."""


def _program(*names: str) -> Find:
    """The first of these programs, beside this Python or on PATH."""

    def find() -> str | None:
        path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
        return next(filter(None, (shutil.which(name, path=path) for name in names)), None)

    return find


def _clang() -> str | None:
    """With the run-time library of the fuzzer, a separate package, and a symbolizer."""
    clang = _program("clang")()
    if clang is None or _program("llvm-symbolizer")() is None:
        return None
    said = subprocess.run([clang, "-print-resource-dir"], capture_output=True, text=True).stdout
    found = any(Path(said.strip()).glob("lib/**/libclang_rt.fuzzer*.a"))
    return clang if found else None


def _module(name: str) -> Find:
    def find() -> str | None:
        spec = importlib.util.find_spec(name)
        return None if spec is None else spec.origin or name

    return find


def _modules(*names: str) -> Find:
    def find() -> str | None:
        found = [_module(name)() for name in names]
        return found[0] if all(found) else None

    return find


def _oldest() -> str | None:
    folder = Path(sys.prefix, "oldest")
    return str(folder) if folder.is_dir() else None


def _debian(find: Find, *packages: str) -> Tool:
    return Tool(find, f"apt-get install {' '.join(packages)}", packages)


_PEERS = {
    "iceoryx2": "iceoryx2",
    "pycapnp": "capnp",
    "pynng": "pynng",
    "pyzmq": "zmq",
    "rpyc": "rpyc",
}
TOOLS = {
    "chromium": _debian(_program("chromium", "chromium-browser"), "chromium"),
    "clang": _debian(_clang, "clang", "libclang-rt-dev", "llvm"),
    "gcc": _debian(_program("gcc", "cc"), "gcc", "libc6-dev"),
    "perf": _debian(_program("perf"), "linux-perf"),
    "tcc": _debian(_program("tcc"), "tcc", "libc6-dev"),
    "spin": _debian(_program("spin"), "spin"),
    "unshare": _debian(_program("unshare"), "util-linux"),
    "pyright": Tool(_program("pyright"), "pip install 'pyright[nodejs]'"),
    "ruff": Tool(_program("ruff"), "pip install ruff"),
    "uvloop": Tool(_module("uvloop"), "pip install uvloop"),
    "sphinx": Tool(_modules("sphinx", "myst_parser", "furo"), "pip install '.[docs]'"),
    "oldest dependencies": Tool(_oldest, "./tests/run installs it"),
    **{name: Tool(_module(module), "pip install '.[peers]'") for name, module in _PEERS.items()},
}


def missing_packages() -> list[str]:
    """Debian's packages of the tools that are not on this machine."""
    return [
        package
        for tool in TOOLS.values()
        if tool.debian and not tool.find()
        for package in tool.debian
    ]


if __name__ == "__main__":
    print(*missing_packages())

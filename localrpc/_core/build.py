"""Compile the C core: a build hook for hatchling, and a command for a source tree.

`python localrpc/_core/build.py` compiles in place.
"""

from __future__ import annotations

import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "src"
FLAGS = ["-std=gnu11", "-O2", "-g0", "-fvisibility=hidden", "-Wall", "-Wextra", "-pthread"]


class BuildError(Exception):
    """The core could not be compiled; the text says what to install."""


def compile_core(target: Path = HERE) -> Path:
    """Compile `_lr` into `target` and return the path of the shared object."""
    if not sys.platform.startswith("linux"):
        raise BuildError(f"localrpc needs Linux; this is {sys.platform}")
    try:
        from cffi import FFI
    except ImportError as error:
        raise BuildError(f"{error}: `pip install cffi setuptools` first") from error

    builder = FFI()
    builder.cdef((SOURCES / "api.h").read_text())
    builder.set_source(
        "localrpc._core._lr",
        '#include "api.h"\n',
        sources=sorted(map(str, SOURCES.glob("*.c"))),
        include_dirs=[str(SOURCES)],
        extra_compile_args=FLAGS,
        extra_link_args=["-pthread"],
        py_limited_api=True,
    )
    with tempfile.TemporaryDirectory(prefix="localrpc-build-") as temporary:
        try:
            built = Path(builder.compile(tmpdir=temporary))
        except Exception as error:
            headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
            missing = "" if headers.exists() else f" ({headers} is missing)"
            raise BuildError(
                f"localrpc's core could not be compiled: {error}{missing}. It needs a C compiler "
                "and Python's headers: `apt-get install gcc python3-dev`, "
                "`dnf install gcc python3-devel`, or your system's like."
            ) from error
        place = target / built.name
        # Replaced, never rewritten: somebody may have the old one mapped.
        fresh = place.with_suffix(".new")
        fresh.write_bytes(built.read_bytes())
        fresh.chmod(0o755)
        fresh.replace(place)
    return place


try:
    from hatchling.builders.config import BuilderConfig
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # compiled by hand: hatchling is only there when a wheel is built
    pass
else:

    class CoreBuildHook(BuildHookInterface[BuilderConfig]):
        """Puts the compiled core into the wheel, and marks the wheel as native."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["pure_python"] = False
            if not sys.platform.startswith("linux"):
                # Code can be generated anywhere; importing the core says what is missing.
                build_data["tag"] = f"py3-none-{platform}"
                return
            try:
                built = compile_core()
            except BuildError as error:
                self.app.abort(str(error))
            if version != "editable":
                build_data["artifacts"].append(f"/localrpc/_core/{built.name}")
            build_data["tag"] = f"cp310-abi3-{platform}"


if __name__ == "__main__":
    try:
        print(compile_core())
    except BuildError as error:
        sys.exit(str(error))

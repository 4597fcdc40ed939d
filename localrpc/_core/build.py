"""Compiles the C core, and the benchmark's loops in C beside it.

A build hook for hatchling, and a command for a source tree: `python localrpc/_core/build.py`
compiles in place.
"""

from __future__ import annotations

import contextlib
import sys
import sysconfig
import tempfile
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
CORE = PACKAGE / "_core" / "src"
BENCH = PACKAGE / "bench" / "src"
# The files of the core that the benchmark calls: hidden symbols are not shared.
SHARED = ("links/bare.c", "links/bell.c", "util/util.c")
FLAGS = ["-std=gnu11", "-O2", "-g0", "-fvisibility=hidden", "-Wall", "-Wextra", "-pthread"]


class BuildError(Exception):
    """The core could not be compiled; the text says what to install."""


def compile_all(package: Path = PACKAGE) -> list[Path]:
    """Compile `_core._lr` and `bench._floor` into `package`, and return their paths."""
    if not sys.platform.startswith("linux"):
        raise BuildError(f"localrpc needs Linux; this is {sys.platform}")
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise BuildError("localrpc does not work with free-threaded builds of Python")
    try:
        from cffi import FFI
    except ImportError as error:
        raise BuildError(f"{error}: `pip install cffi setuptools` first") from error

    common: dict[str, Any] = {
        "extra_compile_args": FLAGS,
        "extra_link_args": ["-pthread"],
        "py_limited_api": True,
    }
    core = FFI()
    core.cdef((CORE / "api.h").read_text())
    core.set_source(
        "localrpc._core._lr",
        '#include "api.h"\n',
        sources=sorted(map(str, CORE.rglob("*.c"))),
        include_dirs=[str(CORE)],
        **common,
    )
    floor = FFI()
    floor.include(core)  # the same types: it takes the core's links
    floor.cdef((BENCH / "floor.h").read_text())
    floor.set_source(
        "localrpc.bench._floor",
        '#include "api.h"\n#include "floor.h"\n',
        sources=[*(str(CORE / name) for name in SHARED), *map(str, BENCH.glob("*.c"))],
        include_dirs=[str(CORE), str(BENCH)],
        **common,
    )
    return [_compile(core, package / "_core"), _compile(floor, package / "bench")]


def _compile(builder: Any, target: Path) -> Path:
    with tempfile.TemporaryDirectory(prefix="localrpc-build-") as temporary:
        try:
            built = Path(builder.compile(tmpdir=temporary))
        except Exception as error:
            headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
            missing = "" if headers.exists() else f" ({headers} is missing)"
            raise BuildError(
                f"localrpc's core could not be compiled: {error}{missing}. It needs a C compiler "
                "and Python's headers: `apt-get install gcc python3-dev`, "
                "`dnf install gcc python3-devel`, or the like."
            ) from error
        target.mkdir(exist_ok=True)
        # Some Pythons have a longer suffix, which no older Python would find.
        place = target / f"{built.name.partition('.')[0]}.abi3.so"
        # Replaced, never rewritten: a process may have the old file mapped.
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
        """Puts the compiled modules into the wheel, and marks it as platform-dependent."""

        _folder: tempfile.TemporaryDirectory[str] | None = None

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["pure_python"] = False
            if not sys.platform.startswith("linux"):
                # Code can be generated on any system; importing the core says what is missing.
                build_data["tag"] = f"py3-none-{platform}"
                return
            try:
                if version == "editable":
                    compile_all()
                else:
                    # Not in the source tree: a wheel build writes nothing there.
                    self._folder = tempfile.TemporaryDirectory(prefix="localrpc-core-")
                    for path in compile_all(Path(self._folder.name)):
                        inside = path.relative_to(self._folder.name)
                        build_data["force_include"][str(path)] = f"localrpc/{inside}"
            except BuildError as error:
                if self._folder is not None:
                    self._folder.cleanup()
                self.app.abort(str(error))
            build_data["tag"] = f"cp310-abi3-{platform}"

        def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
            if self._folder is None:
                return
            self._folder.cleanup()
            # hatchling has imported this file from the source tree, so Python has cached it.
            cached = Path(cache_from_source(__file__))
            cached.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                cached.parent.rmdir()


if __name__ == "__main__":
    try:
        print(*compile_all(), sep="\n")
    except BuildError as error:
        sys.exit(str(error))

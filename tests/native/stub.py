"""The core's face for type checkers, written from src/api.h.

`python -m tests.native.stub` brings localrpc/_core/_lr.pyi up to date.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

CORE = Path(__file__).resolve().parents[2] / "localrpc" / "_core"
STUB = CORE / "_lr.pyi"

HEAD = '''\
"""The compiled core: what src/api.h declares, by `python -m tests.native.stub`."""

from typing import Any, TypeAlias

# A CData; for a `const char *` also bytes.
_Pointer: TypeAlias = Any

class _Lib:
'''
TAIL = """
lib: _Lib
ffi: Any
"""

_CONSTANT = re.compile(r"^#define (LR_\w+)", re.MULTILINE)
_FUNCTION = re.compile(r"^([\w ]+?[ *]+)(lr_\w+)\(([^)]*)\);", re.MULTILINE)


def _python(c_type: str) -> str:
    if "*" in c_type:
        return "_Pointer"
    return "None" if c_type.strip() == "void" else "int"


def _parameter(declaration: str) -> str:
    return re.sub(
        r"(.*?)(\w+)$", lambda m: f"{m[2]}: {_python(m[1])}", declaration.strip(), flags=re.DOTALL
    )


def render() -> str:
    """The stub that belongs to src/api.h as it is."""
    header = re.sub(r"/\*.*?\*/", "", (CORE / "src" / "api.h").read_text(), flags=re.DOTALL)
    lines = [f"    {name}: int\n" for name in _CONSTANT.findall(header)]
    for result, name, declarations in _FUNCTION.findall(header):
        given = [] if declarations == "void" else [*map(_parameter, declarations.split(",")), "/"]
        parameters = ", ".join(["self", *given])
        lines.append(f"    def {name}({parameters}) -> {_python(result)}: ...\n")
    ruff = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(STUB)]
    text = HEAD + "".join(lines) + TAIL
    return subprocess.run(ruff, input=text, text=True, check=True, capture_output=True).stdout


if __name__ == "__main__":
    STUB.write_text(render())

"""Type stubs of the compiled modules, written from the headers that cffi parses.

`python -m tests.native.stub` brings localrpc/_core/_lr.pyi and localrpc/bench/_floor.pyi up to
date.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "localrpc"
STUBS = {
    PACKAGE / "_core" / "_lr.pyi": PACKAGE / "_core" / "src" / "api.h",
    PACKAGE / "bench" / "_floor.pyi": PACKAGE / "bench" / "src" / "floor.h",
}

HEAD = '''\
"""What src/{header} declares, compiled; by `python -m tests.native.stub`."""

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


def render(stub: Path) -> str:
    """The text of the stub for a header in its present state."""
    header = STUBS[stub]
    text = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.DOTALL)
    lines = [f"    {name}: int\n" for name in _CONSTANT.findall(text)]
    for result, name, declarations in _FUNCTION.findall(text):
        given = [] if declarations == "void" else [*map(_parameter, declarations.split(",")), "/"]
        parameters = ", ".join(["self", *given])
        lines.append(f"    def {name}({parameters}) -> {_python(result)}: ...\n")
    ruff = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(stub)]
    text = HEAD.format(header=header.name) + "".join(lines) + TAIL
    return subprocess.run(ruff, input=text, text=True, check=True, capture_output=True).stdout


if __name__ == "__main__":
    for stub in STUBS:
        stub.write_text(render(stub))

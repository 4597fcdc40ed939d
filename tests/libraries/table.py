"""The table of libraries, as the tests have it: `python -m tests.libraries.table` prints it.

A row is a test module: what it has in LIBRARIES, pyproject.toml's versions of that, and what
the first paragraph of its docstring says.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "localrpc" / "integrations" / "README.md"
HEAD = "| library | what works |\n|---|---|\n"


def pinned() -> dict[str, str]:
    """The versions of the extra `libraries`."""
    text = (ROOT / "pyproject.toml").read_text()
    (extra,) = re.findall(r"^libraries = \[\n(.*?)^\]", text, re.M | re.S)
    return dict(re.findall(r'"([\w-]+)==([\w.]+)"', extra))


def tried() -> dict[tuple[str, ...], str]:
    """What each test module says of the libraries that it names."""
    found = {}
    for path in sorted(HERE.glob("test_*.py")):
        module = ast.parse(path.read_text())
        for node in module.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LIBRARIES":
                says = (ast.get_docstring(module) or "").split("\n\n")[0]
                found[tuple(ast.literal_eval(node.value))] = " ".join(says.split()).rstrip(".")
    return found


def table() -> str:
    versions = pinned()
    rows = [
        f"| {', '.join(f'`{name}` {versions[name]}' for name in names)} | {says} |\n"
        for names, says in tried().items()
    ]
    return HEAD + "".join(rows)


if __name__ == "__main__":
    print(table(), end="")

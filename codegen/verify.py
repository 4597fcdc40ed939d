"""Checks that generated text is valid Python before it is written."""

from __future__ import annotations

import re


class NotPythonError(Exception):
    """Generated text is not valid Python; the message names the proto and the cause in it."""


def verify(text: str, module: str, proto: str) -> None:
    """Raise NotPythonError if the text of a module or stub of `proto` does not compile."""
    try:
        compile(text, module, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise NotPythonError(
            f"{proto}: cannot generate {module}: {_construct(text, line)}: {error}; "
            "please report this with the proto"
        ) from error


def _construct(text: str, line: int) -> str:
    """Return the construct in a line, and the classes it is in."""
    lines = text.splitlines()[:line] or [""]
    found = lines[-1].strip()
    outer: list[str] = []
    margin = len(lines[-1]) - len(lines[-1].lstrip())
    for before in reversed(lines[:-1]):
        indent = len(before) - len(before.lstrip())
        named = re.match(r" *(?:class|(?:async )?def) (\w+)", before)
        if named and indent < margin:
            outer.insert(0, named[1])
            margin = indent
    return f"`{found}`" + (f" in {'.'.join(outer)}" if outer else "")

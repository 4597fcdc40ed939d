"""Comments of a proto as docstrings, in the layout of ruff format."""

from __future__ import annotations

import re
import textwrap
from functools import lru_cache

_BARE_QUOTE = re.compile(r'(?<!\\)(\\\\)*"$')
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


def clean(comment: str) -> list[str]:
    """Return the lines of a comment without its margin, blank edges and trailing space."""
    text = comment.replace("\r\n", "\n").replace("\r", "\n").expandtabs()
    first, _, rest = textwrap.dedent(text).strip("\n").partition("\n")
    lines = [first.strip(), *textwrap.dedent(rest).split("\n")]
    lines = [line.rstrip() for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    while lines and not lines[0]:
        del lines[0]
        lines[:1] = [line.lstrip() for line in lines[:1]]
    return lines


@lru_cache(maxsize=256)
def docstring(comment: str, otherwise: str = "") -> str:
    """Return a docstring literal of `comment`, or of `otherwise`; empty if both are."""
    lines = [_escape(line) for line in clean(comment) or clean(otherwise)]
    if not lines:
        return ""
    # A quote must not touch the delimiter.
    if lines[0].startswith('"'):
        lines[0] = " " + lines[0]
    if len(lines) > 1:
        return '"""' + "\n".join(lines) + '\n"""'
    end = " " if _BARE_QUOTE.search(lines[0]) else ""
    return f'"""{lines[0]}{end}"""'


def _escape(line: str) -> str:
    line = line.replace("\\", "\\\\").replace('"""', r"\"\"\"")
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", line)

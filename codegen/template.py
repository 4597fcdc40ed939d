"""Fills a template: `$name` inside a line, or alone in a line for a whole block."""

from __future__ import annotations

import re
import textwrap
from functools import cache

_BLOCK = re.compile(r"^( *)\$(\w+)\n", re.MULTILINE)
_WORD = re.compile(r"\$(\w+)")
_EMPTY = re.compile(r"\n +(?=\n)")
_GAP = re.compile(r"\n{3,}")


def fill(template: str, **values: str) -> str:
    """Return `template` with its placeholders replaced.

    A placeholder alone in its line indents all of its text as that line, and removes the line if
    the text is empty. A class or function has no two blank lines in a row.
    """

    def block(match: re.Match[str]) -> str:
        text = values[match[2]].strip("\n")
        return shift(text, match[1]) + "\n" if text else ""

    # Words first: the text of a block is final, and may contain a dollar sign.
    text, blocks = _prepare(template)
    text = _WORD.sub(lambda match: match[0] if match[1] in blocks else values[match[1]], text)
    return _GAP.sub("\n\n", _BLOCK.sub(block, text)).strip("\n") + "\n"


def shift(text: str, margin: str) -> str:
    """Return `text` with a margin before each line that is not empty."""
    text = f"\n{text}".replace("\n", f"\n{margin}")
    return _EMPTY.sub("\n", text)[1:] if "\n" + margin + "\n" in text else text[1:]


@cache
def _prepare(template: str) -> tuple[str, frozenset[str]]:
    template = textwrap.dedent(template).lstrip("\n")
    return template, frozenset(match[2] for match in _BLOCK.finditer(template))

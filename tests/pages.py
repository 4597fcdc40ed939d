"""Tables in pages that are made from what the code declares.

Such a table follows the line `<!-- table: NAME -->`. `python -m tests.pages` writes them all;
tests/test_documents.py checks that they are up to date.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from localrpc import options

ROOT = Path(__file__).resolve().parents[1]

TABLES: dict[str, tuple[str, Callable[[], Iterable[str]]]] = {
    "options": ("localrpc/sync/README.md", options.table),
}
"""For each table its page, and what makes its lines."""


def with_tables(page: str, text: str) -> str:
    """The page's text with its tables up to date. Raises ValueError if it has no place for one."""
    for name, (where, lines) in TABLES.items():
        if where == page:
            mark = f"<!-- table: {name} -->\n"
            before, found, rest = text.partition(mark)
            if not found:
                raise ValueError(f"{page} has no line {mark.strip()}")
            rest = re.sub(r"\A(\|.*\n)*", "", rest)
            text = before + mark + "".join(f"{line}\n" for line in lines()) + rest
    return text


def main() -> None:
    for page in {page for page, _ in TABLES.values()}:
        path = ROOT / page
        path.write_text(with_tables(page, path.read_text()))


if __name__ == "__main__":
    main()

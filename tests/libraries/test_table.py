"""README says which libraries were tried, in which versions: these."""

from __future__ import annotations

from importlib import metadata
from itertools import chain

import pytest

from .needed import need
from .table import HEAD, ROOT, pinned, table, tried


def test_readme_has_the_table_that_the_tests_make() -> None:
    text = (ROOT / "README.md").read_text()
    assert text.count(HEAD) == 1
    begin = text.index(HEAD)
    end = text.index("\n\n", begin) + 1
    assert text[begin:end] == table(), "print it with `python -m tests.libraries.table`"


def test_every_library_of_the_extra_is_tried_and_no_other() -> None:
    assert sorted(chain(*tried())) == sorted(pinned())


@pytest.mark.parametrize("name", pinned())
def test_what_is_installed_is_what_readme_says(name: str) -> None:
    need((name,))
    assert metadata.version(name) == pinned()[name]

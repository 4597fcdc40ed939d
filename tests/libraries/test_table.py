"""The page of the integrations says which libraries were tried, in which versions: these."""

from __future__ import annotations

from importlib import metadata
from itertools import chain

import pytest

from .needed import need
from .table import HEAD, PAGE, pinned, table, tried


def test_the_page_has_the_table_that_the_tests_make() -> None:
    text = PAGE.read_text()
    assert text.count(HEAD) == 1
    begin = text.index(HEAD)
    end = text.index("\n\n", begin) + 1
    assert text[begin:end] == table(), "print it with `python -m tests.libraries.table`"


def test_every_library_of_the_extra_is_tried_and_no_other() -> None:
    assert sorted(chain(*tried())) == sorted(pinned())


@pytest.mark.parametrize("name", pinned())
def test_what_is_installed_is_what_the_page_says(name: str) -> None:
    need((name,))
    assert metadata.version(name) == pinned()[name]

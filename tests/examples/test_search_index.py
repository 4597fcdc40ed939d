"""The index of the search example, by itself."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

SOURCE = Path(__file__).parents[2] / "examples/search/index.py"


def load() -> Any:
    spec = importlib.util.spec_from_file_location("search_index", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


Index = load().Index


def index_of(files: dict[str, str]) -> Any:
    index = Index()
    for path, text in files.items():
        index.add(path, text)
    return index


def found(index: Any, result: Any) -> list[str]:
    return [index.documents[match.number].path for match in result.matches]


@pytest.fixture
def index() -> Any:
    return index_of(
        {
            "queue.py": "class Queue:\n    def put(self, item): ...\n",
            "heap.py": "from queue import Queue\nqueue = Queue()\nqueue.put(1)\n",
            "empty.py": "",
            "other.py": "print('nothing of the kind')\n",
        }
    )


def test_a_word_is_found_inside_longer_ones_in_any_case(index: Any) -> None:
    assert set(found(index, index.search("UEU"))) == {"queue.py", "heap.py"}


def test_every_word_must_occur(index: Any) -> None:
    assert found(index, index.search("queue import")) == ["heap.py"]
    assert found(index, index.search("queue absent")) == []


def test_the_file_that_defines_a_word_comes_first(index: Any) -> None:
    assert found(index, index.search("queue"))[0] == "queue.py"


def test_a_query_without_words_finds_nothing(index: Any) -> None:
    assert index.search("  \n").matches == ()


def test_a_word_too_short_for_a_trigram_is_found_all_the_same(index: Any) -> None:
    assert set(found(index, index.search("pu"))) == {"queue.py", "heap.py"}


def test_lines_are_numbered_and_hold_all_the_words(index: Any) -> None:
    lines = list(index.lines_with(1, ("queue", "import")))
    assert lines == [(1, "from queue import Queue")]
    assert [number for number, _ in index.lines_with(1, ("queue",))] == [1, 2, 3]


def test_an_unusual_line_break_or_letter_moves_no_line(index: Any) -> None:
    index.add("odd.py", "a\x0cb\r\nİ\u2028x = 1\nneedle\n")
    assert list(index.lines_with(4, ("needle",))) == [(3, "needle")]


def test_a_refined_query_looks_only_into_what_was_found(index: Any) -> None:
    first = index.search("que")
    second = index.search("queue im", within=first)
    assert found(index, second) == ["heap.py"]
    assert second.examined <= len(first.matches)


def test_a_query_that_does_not_narrow_starts_anew(index: Any) -> None:
    assert found(index, index.search("print", within=index.search("queue"))) == ["other.py"]


words = st.text("abAB_. \n", max_size=12)


@given(st.lists(words, max_size=6), words, words)
def test_the_index_finds_the_same_as_a_full_scan(texts: list[str], query: str, more: str) -> None:
    index = index_of({f"{number}.py": text for number, text in enumerate(texts)})
    earlier = index.search(query)
    result = index.search(query + more, within=earlier)
    wanted = (query + more).lower().split()
    numbers = {
        number
        for number, text in enumerate(texts)
        if wanted and all(word in text.lower() for word in wanted)
    }
    assert {match.number for match in result.matches} == numbers

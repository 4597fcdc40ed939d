"""JSON values from text: the same values for every spelling and division, or Misuse."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localrpc.cli.rpc.errors import Misuse
from localrpc.cli.rpc.requests import _values

scalars = st.none() | st.booleans() | st.integers() | st.text()
objects: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.text(), scalars | st.lists(scalars | st.just({"a": [{}]}))
)


@settings(max_examples=50)
@given(values=st.lists(objects), indent=st.none() | st.just(2), array=st.booleans())
def test_written_values_are_read(
    values: list[dict[str, Any]], indent: int | None, array: bool
) -> None:
    if array:
        text = json.dumps(values, indent=indent)
    else:
        text = "\n".join(json.dumps(value, indent=indent) for value in values)
    assert list(_values(text.splitlines(keepends=True), unwrap=True)) == values


@given(st.text(alphabet='{}[]",:1 \n\\a'))
def test_any_text_gives_values_or_misuse(text: str) -> None:
    try:
        list(_values(text.splitlines(keepends=True), unwrap=True))
    except Misuse:
        pass


def test_a_value_comes_with_the_line_that_ends_it() -> None:
    read: list[str] = []

    def lines() -> Any:
        for line in ("[\n", '{"a":\n', "1},\n", '{"b": 2}\n', "]"):
            read.append(line)
            yield line

    values = _values(lines(), unwrap=True)
    assert next(values) == {"a": 1}
    assert read[-1] == "1},\n"
    assert next(values) == {"b": 2}
    assert read[-1] == '{"b": 2}\n'


def test_a_value_nested_too_deeply_is_misuse() -> None:
    with pytest.raises(Misuse, match="too deeply"):
        list(_values(["[" * 100_000], unwrap=False))

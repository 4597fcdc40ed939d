"""Names, comments and templates, each by itself."""

from __future__ import annotations

import ast
import keyword

import pytest
from hypothesis import given
from hypothesis import strategies as st
from localrpc_codegen.docs import docstring
from localrpc_codegen.layout import Imports, Layout
from localrpc_codegen.names import (
    Names,
    attribute_name,
    constant_name,
    folder_name,
    upper_name,
)
from localrpc_codegen.template import fill


@pytest.mark.parametrize(
    ("name", "constant"),
    [
        ("SayHello", "SAY_HELLO"),
        ("GetHTTPPage", "GET_HTTP_PAGE"),
        ("say_hello", "SAY_HELLO"),
        ("Get2Things", "GET2_THINGS"),
        ("HTTP", "HTTP"),
        ("x", "X"),
    ],
)
def test_constants_are_spelled_as_constants(name: str, constant: str) -> None:
    assert upper_name(name) == constant


def test_a_constant_is_never_mangled() -> None:
    assert constant_name("__Service__", "Get") == "_SERVICE___GET"
    assert constant_name("Plain", "__get") == "PLAIN___GET"


@given(
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True) | st.sampled_from(keyword.kwlist)
)
def test_an_attribute_can_always_be_written_and_is_never_mangled(name: str) -> None:
    attribute = attribute_name(name)
    assert attribute.isidentifier()
    assert not keyword.iskeyword(attribute)
    assert not attribute.startswith("__")
    if not keyword.iskeyword(name) and not name.startswith("__"):
        assert attribute == name


@given(st.text(min_size=1).filter(lambda text: "/" not in text))
def test_any_folder_can_be_imported(name: str) -> None:
    assert folder_name(name).isidentifier()
    assert not keyword.iskeyword(folder_name(name))


def test_an_unchanged_name_takes_precedence_over_a_changed_one() -> None:
    spell = {"import": "import_", "import_": "import_"}
    assert Names().pick_all(spell, spell) == {"import": "import__", "import_": "import_"}


@given(st.text())
def test_any_comment_becomes_an_equal_docstring(comment: str) -> None:
    literal = docstring(comment)
    if not literal:
        assert not comment.strip()
        return
    said = ast.literal_eval(literal)
    assert "".join(said.split()) == "".join(comment.split())


@given(st.text(alphabet='"\\ \n\ta'))
def test_quotes_and_backslashes_do_not_end_a_docstring(comment: str) -> None:
    literal = docstring(comment)
    if literal:
        assert "".join(ast.literal_eval(literal).split()) == "".join(comment.split())


@pytest.mark.parametrize(
    ("importer", "imported", "statement"),
    [
        ("a.proto", "b.proto", "from . import b_pb2 as x"),
        ("a/a.proto", "b.proto", "from .. import b_pb2 as x"),
        ("a.proto", "b/b.proto", "from .b import b_pb2 as x"),
        ("a/b/c.proto", "a/d/e.proto", "from ..d import e_pb2 as x"),
        ("a/b/c.proto", "a/b/d.proto", "from . import d_pb2 as x"),
        ("a/b.proto", "google/protobuf/any.proto", "from google.protobuf import any_pb2 as x"),
    ],
)
def test_imports_are_relative_inside_the_output_only(
    importer: str, imported: str, statement: str
) -> None:
    ours = {importer, imported} - {"google/protobuf/any.proto"}
    assert Layout(ours, Imports.RELATIVE).statement(importer, imported, "x") == statement


def test_a_block_is_indented_and_an_empty_one_leaves_no_line() -> None:
    text = fill("class $name:\n    $doc\n\n    $body\n", name="A", doc="", body="x = 1\n\ny = '$z'")
    assert text == "class A:\n\n    x = 1\n\n    y = '$z'\n"

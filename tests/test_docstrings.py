"""Every public name has a docstring that says what a user has to know before the first call."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import localrpc
import localrpc.errors
import localrpc.testing
from localrpc import observe
from localrpc.sync import channel, children, context, server
from localrpc.transports import base, scheme

FUNCTIONS = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (localrpc, localrpc.observe, localrpc.testing)
    for name in module.__all__
    if inspect.isfunction(getattr(module, name))
}
"""Not transports(), which the package of that name hides once it has been imported."""
# What public functions return: users see their methods and attributes.
CLASSES = (
    channel.Channel,
    children.ChildChannel,
    server.Server,
    context.ServicerContext,
)
RECORDS = (
    *(base.PeerCredentials, base.ConnectionFacts, scheme.Offer),
    *(observe.Counts, observe.Endpoint, observe.Latency, observe.Page, observe.Process),
)
# Functions whose results live on, and those with state of the process: from which threads, and
# what after a fork?
SHARED = ("insecure_channel", "server", "instrument", "patch_grpc", "spawn_channel", "fork_channel")
FORKED = ("insecure_channel", "server", "fork_channel")


def mistakes_in(name: str, function: Any, others: dict[str, str]) -> Iterator[str]:
    """What a docstring does not say; `others` are docstrings that it may refer to by name."""
    doc = inspect.getdoc(function) or ""
    first = doc.partition("\n")[0]
    if not re.match(r"[A-Z][a-z]+,? .*[.]$", first):
        yield "no first sentence in one line"
    elif re.match(r"(\w+s|The|A|An|This|What|Whether) ", first):
        yield f"does not begin with an imperative: {first}"
    said = doc + "".join(text for other, text in others.items() if re.search(rf"\b{other}\b", doc))
    signature = inspect.signature(function, eval_str=False)
    yield from (
        f"does not explain `{parameter}`"
        for parameter in signature.parameters
        if not re.search(rf"`{parameter}\b", said)
    )
    returns = signature.return_annotation not in ("None", None, inspect.Signature.empty)
    if returns and not re.search(r"\b([Rr]eturns?|[Yy]ields?)\b", said):
        yield "does not say what it returns"
    if not re.search(r"\b([Rr]aises|has no (further )?effect)\b", said):
        yield "does not say what it raises"
    if {"timeout", "grace"} & set(signature.parameters) and "second" not in said:
        yield "does not name the unit of a time"
    short = name.rpartition(".")[2]
    if short in SHARED and not re.search(r"\b[Tt]hread", said):
        yield "does not say from which threads it may be used"
    if short in FORKED and not re.search(r"\b[Ff]ork", said):
        yield "does not say what holds after a fork"


def test_a_public_function_is_explained() -> None:
    short = {name.rpartition(".")[2]: function for name, function in FUNCTIONS.items()}
    # The other names are ordinary words, too.
    docs = {name: inspect.getdoc(each) or "" for name, each in short.items() if "_" in name}
    found = {name: list(mistakes_in(name, each, docs)) for name, each in FUNCTIONS.items()}
    assert {name: mistakes for name, mistakes in found.items() if mistakes} == {}
    assert len(found) >= 12


@pytest.mark.parametrize(
    ("doc", "mistake"),
    [
        ("", "no first sentence in one line"),
        ("Returns a channel to `target`. Raises ValueError.", "does not begin with an imperative"),
        ("Return a channel.\n\nRaises ValueError.", "does not explain `target`"),
        ("Open `target`.\n\nRaises ValueError.", "does not say what it returns"),
        ("Return a channel to `target`.", "does not say what it raises"),
        ("Return a channel to `target`.\n\nRaises ValueError.", "does not name the unit"),
        ("Return a channel to `target`.\n\nRaises ValueError.", "from which threads"),
        ("Return a channel to `target`.\n\nRaises ValueError.", "after a fork"),
    ],
)
def test_what_a_docstring_lacks_is_found(doc: str, mistake: str) -> None:
    def insecure_channel(target: str, timeout: float) -> object: ...

    insecure_channel.__doc__ = doc
    assert any(mistake in each for each in mistakes_in("insecure_channel", insecure_channel, {}))


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: str(cls.__name__))
def test_every_public_method_has_a_docstring(cls: type) -> None:
    """Those that grpc declares have grpc's, unless there is more to say."""
    names = [name for name in dir(cls) if not name.startswith("_")]
    assert [name for name in names if not inspect.getdoc(getattr(cls, name))] == []
    assert inspect.getdoc(cls)


@pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: str(cls.__name__))
def test_every_field_of_a_result_is_explained(cls: type) -> None:
    """In the docstring of the class, or in one of its own."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    doc = inspect.getdoc(cls) or ""
    unexplained = []
    for statement, following in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            own = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            if not own and f"`{statement.target.id}`" not in doc:
                unexplained.append(statement.target.id)
    assert unexplained == []


def test_every_exception_has_a_docstring() -> None:
    classes = [each for each in vars(localrpc.errors).values() if inspect.isclass(each)]
    own = [each for each in classes if each.__module__ == "localrpc.errors"]
    assert own
    assert [each for each in own if not vars(each).get("__doc__")] == []


@pytest.mark.parametrize(
    "path",
    sorted((Path(__file__).parent / "codegen" / "golden").glob("*_localrpc.py")),
    ids=lambda path: str(path.name),
)
def test_generated_classes_and_functions_have_docstrings(path: Path) -> None:
    tree = ast.parse(path.read_text())
    public = [
        node
        for node in tree.body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_")
    ]
    overloads = {
        node for node in public for each in node.decorator_list if "overload" in ast.unparse(each)
    }
    assert ast.get_docstring(tree)
    assert [
        node.name for node in public if node not in overloads and not ast.get_docstring(node)
    ] == []
    assert len(public) > len(overloads)


@pytest.mark.parametrize("module", ["opentelemetry", "prometheus", "sentry"])
def test_an_integration_has_a_guide(module: str) -> None:
    source = Path(localrpc.__file__).parent / "integrations" / f"{module}.py"
    tree = ast.parse(source.read_text())
    assert f"localrpc.integrations.{module}" in (ast.get_docstring(tree) or "")
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    assert classes
    assert all(ast.get_docstring(node) for node in classes)


def test_the_options_of_the_guide_are_explained() -> None:
    options = importlib.import_module("localrpc.options")
    assert [each.key for each in options.DECLARED if not each.text] == []
    assert all(each.key in (options.__doc__ or "") for each in options.DECLARED)

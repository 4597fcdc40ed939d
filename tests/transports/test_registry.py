"""Schemes describe themselves, and cost nothing until a target has one."""

from __future__ import annotations

import ast
import itertools
import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from localrpc.errors import AddressError
from localrpc.transports import (
    REGISTERED,
    Transport,
    registry,
    schemes,
    transport_for,
    transports,
)
from localrpc.transports.targets import AnyOption
from tests.conftest import TARGETS
from tests.links.kinds import KINDS

from .helpers import outcome

FOLDER = Path(registry.__file__).parent
MODULES = [f"localrpc.transports.{path.stem}" for path in FOLDER.glob("[a-z]*.py")]
OPTIONS = list(
    dict.fromkeys(itertools.chain.from_iterable(each.options for each in schemes().values()))
)

FIRST_CALL = """
import json, sys
import grpc, localrpc
with localrpc.insecure_channel("unix:/nowhere/at/all") as channel:
    try:
        channel.unary_unary("/a/b")(b"", timeout=5)
    except grpc.RpcError:
        pass
print(json.dumps([name for name in sys.modules if name.startswith("localrpc.transports.")]))
"""


def test_a_call_imports_the_transport_of_its_target_alone() -> None:
    imported = json.loads(outcome(FIRST_CALL))
    modules = {f"localrpc.transports.{entry.partition('.')[0]}" for entry in REGISTERED.values()}
    assert modules & set(imported) == {"localrpc.transports.unix"}


def test_a_scheme_is_registered_by_its_own_name() -> None:
    assert {name: scheme.scheme for name, scheme in schemes().items()} == {
        name: name for name in REGISTERED
    }


def test_every_transport_is_in_the_suites_of_calls_and_of_links() -> None:
    """But fd:, which takes a socket of another transport."""
    everywhere = set(transports()) - {"fd"}
    assert {target.partition(":")[0] for target in TARGETS.values()} == everywhere
    assert {kind.target.partition(":")[0] for kind in KINDS.values()} == everywhere


def test_all_but_grpc_are_transports() -> None:
    assert set(REGISTERED) - set(transports()) == {"grpc"}
    assert isinstance(transport_for("unix"), Transport)
    for name in ("grpc", "nothing"):
        with pytest.raises(AddressError, match=f"unknown scheme '{name}'; localrpc knows shm:, "):
            transport_for(name)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.key)
def test_an_option_of_targets_is_read(option: AnyOption) -> None:
    readers = {
        node.value.id
        for path in FOLDER.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr == "of"
        and isinstance(node.value, ast.Name)
    }
    assert option.key.upper() in readers
    assert option.text
    assert option.values


def own_ancestors(kind: type) -> int:
    """Return how many classes of localrpc are above one, in a line."""
    ours = [base for base in kind.__bases__ if base.__module__ in MODULES]
    return max((1 + own_ancestors(base) for base in ours), default=0)


def test_classes_inherit_at_most_twice() -> None:
    """What several share beyond that is a part, not a base."""
    kinds = {
        kind
        for module in MODULES
        for kind in vars(import_module(module)).values()
        if isinstance(kind, type) and kind.__module__ == module
    }
    assert len(kinds) > 50
    assert {kind.__qualname__: depth for kind in kinds if (depth := own_ancestors(kind)) > 2} == {}


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            yield node


def test_no_function_can_only_raise() -> None:
    """A transport that cannot do something does not have the function."""
    found = []
    for path in FOLDER.glob("*.py"):
        for function in functions(path):
            body = function.body[1:] if ast.get_docstring(function) else function.body
            if body and isinstance(body[0], ast.Raise):
                found.append(f"{path.name}: {function.name}")
    assert found == []


def test_what_transports_have_made_is_not_changed_from_above() -> None:
    """Admission goes in as an argument, and an accepted connection comes out."""
    found = []
    for path in [*(FOLDER.parent / "drive").glob("*.py"), *(FOLDER.parent / "sync").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                changed = ast.unparse(node.value).rpartition(".")[2].lstrip("_")
                if changed in ("connection", "listener", "greeting", "dialer"):
                    found.append(f"{path.name}: {ast.unparse(node)}")
    assert found == []

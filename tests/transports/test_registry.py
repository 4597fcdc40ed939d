"""Schemes describe themselves, and cost nothing until a target has one."""

from __future__ import annotations

import ast
import itertools
import json
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

from .doors import outcome

FOLDER = Path(registry.__file__).parent
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

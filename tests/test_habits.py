"""What no file of the package and the suite does, because it fails only now and then."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def all_nodes(*folders: str) -> Iterator[tuple[str, ast.AST]]:
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    assert len(files) > 200
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, (ast.keyword, ast.Expr)):
                yield f"{file.relative_to(ROOT)}:{node.value.lineno}", node


def test_no_process_is_started_with_preexec_fn() -> None:
    """With it subprocess forks in place of vfork.

    In a process that has used grpcio, grpcio's fork handlers start its threads again in the child;
    if these run before exec, after the child's descriptors were closed, they abort the process:
    the program ends by SIGABRT before it was started, once in some thousand times.
    """
    found = [
        place
        for place, node in all_nodes("localrpc", "codegen", "examples", "tests", ".dev")
        if isinstance(node, ast.keyword) and node.arg == "preexec_fn"
    ]
    assert found == []


def test_no_test_forgets_that_add_callback_can_come_too_late() -> None:
    """tests/endings.py says what happens then; `at_end()` is for it."""
    found = [
        place
        for place, node in all_nodes("tests")
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute)
        and node.value.func.attr == "add_callback"
    ]
    assert found == []

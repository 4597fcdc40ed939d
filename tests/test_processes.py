"""How the package and the suite start other programs."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_no_process_is_started_with_preexec_fn() -> None:
    """With it subprocess forks in place of vfork.

    In a process that has used grpcio, grpcio's fork handlers start its threads again in the child;
    if these run before exec, after the child's descriptors were closed, they abort the process:
    the program ends by SIGABRT before it was started, once in some thousand times.
    """
    files = [
        file
        for folder in ("localrpc", "codegen", "examples", "tests", ".dev")
        for file in (ROOT / folder).rglob("*.py")
    ]
    assert len(files) > 400
    found = [
        f"{file.relative_to(ROOT)}:{node.value.lineno}"
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.keyword) and node.arg == "preexec_fn"
    ]
    assert found == []

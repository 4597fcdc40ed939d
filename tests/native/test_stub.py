"""The type stubs of the compiled modules agree with the headers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from localrpc import _core
from localrpc.bench import _floor

from .stub import STUBS, render

COMPILED: dict[str, Any] = {"_lr.pyi": _core, "_floor.pyi": _floor}


@pytest.mark.parametrize("stub", STUBS, ids=lambda path: path.stem)
def test_a_stub_is_what_its_header_gives(stub: Path) -> None:
    assert stub.read_text() == render(stub), "run `python -m tests.native.stub`"


@pytest.mark.parametrize("stub", STUBS, ids=lambda path: path.stem)
def test_a_stub_has_every_name_of_what_is_compiled(stub: Path) -> None:
    text, compiled = stub.read_text(), COMPILED[stub.name]
    for name in dir(compiled.lib):
        value = getattr(compiled.lib, name)
        if isinstance(value, int):
            assert f"    {name}: int\n" in text
        else:
            assert compiled.ffi.typeof(value).kind == "function"
            assert f"    def {name}(" in text


def test_the_core_does_not_carry_what_the_benchmark_alone_needs() -> None:
    assert not {*dir(_floor.lib)} & {*dir(_core.lib)}

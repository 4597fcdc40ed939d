"""The C core's type stub says what its header says."""

from __future__ import annotations

from localrpc._core import ffi, lib

from .stub import STUB, render


def test_the_stub_is_what_the_header_gives() -> None:
    assert STUB.read_text() == render(), "run `python -m tests.native.stub`"


def test_the_stub_has_every_name_of_the_compiled_core() -> None:
    stub = STUB.read_text()
    for name in dir(lib):
        value = getattr(lib, name)
        if isinstance(value, int):
            assert f"    {name}: int\n" in stub
        else:
            assert ffi.typeof(value).kind == "function"
            assert f"    def {name}(" in stub

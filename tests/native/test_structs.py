"""The offsets of fields in structures of the core that Python packs and unpacks by hand."""

from __future__ import annotations

import ast
import re
import struct
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cffi import FFI

from localrpc._core import ffi
from localrpc.drive import arrivals, event_loop, loop_serving, loop_session
from localrpc.sync import handling
from localrpc.wire import frames

from .build import CORE

IO = ("call", "size", "kind", "count", "flags", "method", "head", "conn", "deadline")
NEWS = ("call", "size", "deadline", "kind", "flags", "method", "head", "conn", "at")
HEADER = ("length", "type", "flags", "cpu", "call")


def places_in(known: Any, name: str, fields: tuple[str, ...]) -> list[tuple[int, int, bool]]:
    """Offset, size and sign of fields in C."""
    types = dict(known.typeof(name).fields)
    return [
        (
            known.offsetof(name, field),
            known.sizeof(types[field].type),
            int(known.cast(types[field].type, -1)) < 0,
        )
        for field in fields
    ]


def places_of(layout: struct.Struct) -> list[tuple[int, int, bool]]:
    """The same, in a format of the struct module."""
    order, codes = layout.format[0], layout.format[1:]
    assert order == "<"  # no padding: fields follow each other
    return [
        (struct.calcsize(order + codes[:at]), struct.calcsize(order + code), code.islower())
        for at, code in enumerate(codes)
    ]


def names_that_take(path: Path, call: str) -> list[list[str]]:
    """The names on the left of each assignment from a call."""
    return [
        [name.id for name in node.targets[0].elts if isinstance(name, ast.Name)]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Tuple)
        and ast.unparse(node.value).startswith(call)
    ]


def test_a_worker_reads_what_the_core_wrote_of_a_call() -> None:
    assert places_of(arrivals.CALL) == places_in(ffi, "struct lr_io", IO)


@pytest.mark.parametrize("module", [arrivals, handling])
def test_a_worker_calls_the_fields_of_a_call_by_their_names(module: ModuleType) -> None:
    path = Path(module.__file__ or "")
    taken = [*names_that_take(path, "unpack("), *names_that_take(path, "CALL.unpack_from(")]
    assert taken
    assert len(taken) == len(re.findall(r"\bunpack(?:_from)?\(", path.read_text()))
    for names in taken:
        assert [name if name != "_" else field for name, field in zip(names, IO, strict=True)] == [
            *IO
        ]


def test_an_event_loop_reads_what_the_core_wrote_of_its_news() -> None:
    assert event_loop.NEWS.size == ffi.sizeof("struct lr_news")
    assert places_of(event_loop.NEWS) == places_in(ffi, "struct lr_news", NEWS)


@pytest.mark.parametrize("module", [loop_session, loop_serving])
def test_an_event_loop_calls_the_fields_of_its_news_by_their_names(module: ModuleType) -> None:
    renamed = {"handle": "call"}
    loops = [
        [renamed.get(name.id, name.id) for name in node.target.elts if isinstance(name, ast.Name)]
        for node in ast.walk(ast.parse(Path(module.__file__ or "").read_text()))
        if isinstance(node, ast.For)
        and isinstance(node.target, ast.Tuple)
        and ast.unparse(node.iter) == "news"
    ]
    assert loops
    for names in loops:
        assert [
            name if name != "_" else field for name, field in zip(names, NEWS, strict=True)
        ] == [*NEWS]


def test_python_and_the_core_have_the_same_header_of_a_frame() -> None:
    text = (CORE / "links" / "link.h").read_text()
    (declared,) = re.findall(r"^struct lr_header \{.*?^\};", text, re.MULTILINE | re.DOTALL)
    header = FFI()
    header.cdef(declared)
    assert header.sizeof("struct lr_header") == frames.HEADER_SIZE
    assert places_of(frames._HEADER) == places_in(header, "struct lr_header", HEADER)

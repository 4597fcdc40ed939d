"""Make the output of protoc and mypy-protobuf import its neighbours as the layout says."""

from __future__ import annotations

import re
from collections.abc import Mapping

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from .layout import Layout, mypy_head, protoc_module
from .names import is_plain

_BUILD = re.compile(r"(_builder\.BuildTopDescriptorsAndMessages\(DESCRIPTOR, )'[^']*'")
_STUB_IMPORT = re.compile(r"^(?:from (\S+) )?import (\w+) as (\w+)$", re.MULTILINE)

_DUNDER_VALUE = re.compile(r"^ *__\w+__: [\w.]+\.ValueType  #", re.MULTILINE)

# What pyright minds in the output of others: protoc does not type its `_pb2.py` (which type
# checkers read only in passing: the `.pyi` counts), and mypy-protobuf narrows DESCRIPTOR.
MODULE_HEAD = "# type: ignore\n"
STUB_HEAD = "# pyright: reportIncompatibleVariableOverride=false\n"


class RewriteError(Exception):
    """protoc wrote something that this module does not know."""


def rewrite_module(text: str, file: FileDescriptorProto, layout: Layout) -> str:
    """A `_pb2.py`, with its imports as the layout has them, and messages that can be pickled."""
    for dependency in file.dependency:
        text = _rewrite_dependency(text, file.name, dependency, layout)
    for index in file.public_dependency:
        dependency = file.dependency[index]
        old = f"from {protoc_module(dependency)} import *\n"
        new = f"from {layout.path(file.name, dependency)} import *\n"
        text = _replace(text, old, new, file.name)
    # Classes look for themselves under the name that they were really imported by.
    text, count = _BUILD.subn(r"\1__name__", text)
    if count != 1:
        raise RewriteError(f"{file.name}: protoc's output has a form that is not known here")
    return MODULE_HEAD + text


def _rewrite_dependency(text: str, proto: str, dependency: str, layout: Layout) -> str:
    module = protoc_module(dependency)
    alias = module.replace("_", "__").replace(".", "_dot_")
    package, _, name = module.rpartition(".")
    by_name = f"import importlib\n{alias} = importlib.import_module('{module}')\n"
    plain = (
        f"from {package} import {name} as {alias}\n" if package else f"import {name} as {alias}\n"
    )
    if layout.importable(proto, dependency):
        new = layout.statement(proto, dependency, alias) + "\n"
    else:
        call = layout.call(proto, dependency, "importlib.import_module")
        new = f"import importlib\n{alias} = {call}\n"
    text = _replace(text, by_name if by_name in text else plain, new, proto)
    # protoc's own spelling is no name if the folder begins with a digit.
    return text if alias.isidentifier() else re.sub(rf"(?<!\w){alias}(?!\w)", f"_{alias}", text)


def _replace(text: str, old: str, new: str, proto: str) -> str:
    # Only whole lines: `import a_pb2` also ends `from b import a_pb2`.
    before, found, after = f"\n{text}".partition(f"\n{old}")
    if not found:
        raise RewriteError(f"{proto}: protoc's output lacks the line {old.strip()!r}")
    return f"{before}\n{new}{after}"[1:]


def rewrite_stub(
    text: str,
    file: FileDescriptorProto,
    modules: Mapping[str, FileDescriptorProto],
    layout: Layout,
) -> str:
    """A `_pb2.pyi` of mypy-protobuf, with its imports as the layout has them.

    `modules` holds every file under the name that protoc has for its module.
    """

    def replace(match: re.Match[str]) -> str:
        package, name, alias = match[1] or "", match[2], match[3]
        imported = modules.get(f"{package}.{name}" if package else name)
        if imported is not None:
            return layout.statement(file.name, imported.name, alias)
        public = modules.get(package)
        if public is None:
            return match[0]
        return _public_name(name, layout.path(file.name, public.name), public)

    head, found, body = text.partition("\nDESCRIPTOR: ")
    # What is deprecated in a file is used in that file: by its own constructors, for one.
    start = STUB_HEAD + mypy_head(
        untyped=layout.untyped(file.dependency),
        deprecated="deprecated" in text,
        dunders=_DUNDER_VALUE.search(text) is not None,
    )
    return start + _STUB_IMPORT.sub(replace, head).replace("\n\n\n", "\n\n") + found + body


def _public_name(name: str, module: str, file: FileDescriptorProto) -> str:
    """The re-export of one name of a public import.

    mypy-protobuf writes a message or enum called `None` as `_r_None`, and leaves out enum values
    and extensions of such names, but re-exports them all as they are, which is a syntax error.
    """
    if is_plain(name):
        return f"from {module} import {name} as {name}"
    types = {message.name for message in file.message_type} | {enum.name for enum in file.enum_type}
    return f"from {module} import _r_{name} as _r_{name}" if name in types else ""

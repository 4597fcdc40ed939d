"""Makes the message modules of protoc import each other as the layout says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from .layout import Layout, protoc_module
from .names import Names
from .spelling import top_level_names, unspellable

# protoc's imports are between these two lines; the serialized descriptor follows.
_PARTS = re.compile(
    r"(?P<head>.*\n_sym_db = _symbol_database\.Default\(\)\n)"
    r".*?\n"
    r"(?P<text>(?:if not _descriptor\._USE_C_DESCRIPTORS:\n.*?\nelse:\n  )?DESCRIPTOR = [^\n]*\n)"
    r"(?P<rest>.*)",
    re.DOTALL,
)
_BUILD = re.compile(r"(_builder\.BuildTopDescriptorsAndMessages\(DESCRIPTOR, )'[^']*'")
# Services of protobuf's own kind, which it no longer has: the line would be an ImportError.
_SERVICES = re.compile(r"^_builder\.BuildServices\(.*\n", re.MULTILINE)
# A variable of protoc's own.
_VARIABLE = re.compile(r"(?<![\w.'])_[a-z]\w*")

_GLOBALS = "_globals = globals()"
_WRAPPER = "_enum_type_wrapper"
_IMPORTLIB = "_importlib"

# protoc's modules are untyped, and type checkers read the `.pyi` instead.
HEAD = "# type: ignore\n"


class RewriteError(Exception):
    """protoc wrote something that this module does not know."""


def rewrite_module(
    text: str, file: FileDescriptorProto, files: Mapping[str, FileDescriptorProto], layout: Layout
) -> str:
    """Return a `_pb2.py` whose imports are found, and whose messages can be pickled.

    Types with a name that Python cannot spell get a second one, the name in the stub.
    """
    parts = _PARTS.fullmatch(text)
    # Classes are looked up under the name by which they were really imported.
    rest, built = _BUILD.subn(r"\1__name__", parts["rest"] if parts else "")
    if parts is None or built != 1:
        raise RewriteError(f"{file.name}: the form of protoc's output is unknown")
    own = set(top_level_names(file))
    second_names = _second_names(file, files)
    setup = [_GLOBALS, *_imports(file, files, layout)]
    if any(_WRAPPER in line for line in second_names):
        setup.insert(0, f"from google.protobuf.internal import enum_type_wrapper as {_WRAPPER}")
    if any(_IMPORTLIB in line for line in setup):
        setup.insert(0, f"import importlib as {_IMPORTLIB}")
    # A public import may bring a message called `globals`, so globals() is called before.
    rest = rest.replace(f"{_GLOBALS}\n", "", 1)
    load, call, serialized = parts["text"].partition("AddSerializedFile(")
    lines = [parts["head"], "\n", *(line + "\n" for line in setup), "\n"]
    return "".join(
        [
            HEAD,
            *(_rename(line, own) for line in lines),
            _rename(load, own) + call + serialized,
            _rename(_SERVICES.sub("", rest), own),
            *(_rename(line, own) + "\n" for line in second_names),
        ]
    )


def _imports(
    file: FileDescriptorProto, files: Mapping[str, FileDescriptorProto], layout: Layout
) -> Iterator[str]:
    """Yield the imports of protos, and of the names that public imports add."""
    names = Names()
    for index, dependency in enumerate(file.dependency):
        public = index in file.public_dependency
        if layout.importable(file.name, dependency):
            alias = protoc_module(dependency).replace("_", "__").replace(".", "_dot_")
            alias = names.pick(alias if alias.isidentifier() else "_imported__pb2")
            yield layout.statement(file.name, dependency, alias)
            if public and "__all__" not in top_level_names(files[dependency]):
                yield f"from {layout.path(file.name, dependency)} import *"
                continue
            module = alias
        else:
            module = layout.call(file.name, dependency, f"{_IMPORTLIB}.import_module")
            if not public:
                yield module
        if public:
            names_in = f"{module}.__dict__.items()"
            yield f"_globals.update((name, it) for name, it in {names_in} if name[0] != '_')"


def _rename(text: str, taken: set[str]) -> str:
    """Rename each variable that a message or value of this proto would replace."""
    return _VARIABLE.sub(lambda match: f"{match[0]}__own" if match[0] in taken else match[0], text)


def _second_names(file: FileDescriptorProto, files: Mapping[str, FileDescriptorProto]) -> list[str]:
    """Return assignments of types that Python cannot spell to names that it can."""
    lines = []
    for (*outer, name), other, enum in unspellable(file, files):
        if not outer:
            lines.append(f"_globals['{other}'] = _globals['{name}']")
            continue
        scope = f"_globals['{outer[0]}']"
        for part in outer[1:]:
            scope += f".DESCRIPTOR.nested_types_by_name['{part}']._concrete_class"
        value = f"{scope}.DESCRIPTOR.nested_types_by_name['{name}']._concrete_class"
        if enum:
            value = f"{_WRAPPER}.EnumTypeWrapper({scope}.DESCRIPTOR.enum_types_by_name['{name}'])"
        lines.append(f"{scope}.{other} = {value}")
    return lines

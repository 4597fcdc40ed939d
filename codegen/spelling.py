"""How Python code spells the types of a proto, and which names a module has for others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.empty_pb2 import Empty
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from .names import Names, is_plain

Path = tuple[str, ...]

# An attribute that each message class has hides an enum or an enum value of that name inside it.
MESSAGE_ATTRIBUTES = frozenset(dir(Empty)) | frozenset(dir(type(Empty)))
# The same for the values of an enum.
ENUM_ATTRIBUTES = frozenset(dir(EnumTypeWrapper)) | {"DESCRIPTOR", "_enum_type"}
# Names with another meaning in Python, in a module or class, or for type checkers.
PYTHON_ATTRIBUTES = frozenset(
    name
    for name in (*dir(object), *dir(type), *dir(ModuleType("")), *dir(Empty))
    if name.startswith("__")
) | {"__all__", "__annotations__", "__builtins__", "__cached__", "__del__", "__file__"}
PYTHON_ATTRIBUTES |= {"__getattr__", "__match_args__", "__path__", "__post_init__", "__slots__"}
# A nested message replaces the attribute, except those that are set after it.
_SET_LAST = frozenset({"DESCRIPTOR", "__module__", "__qualname__", "__slots__"})


def is_repeated(field: Any) -> bool:
    """Of a FieldDescriptor; `label` is deprecated, and all that protobuf has before 6.31."""
    if hasattr(field, "is_repeated"):
        return bool(field.is_repeated)
    return bool(field.label == field.LABEL_REPEATED)


def type_paths(file: FileDescriptorProto) -> dict[Path, Path]:
    """Return the Python names that lead to each message and enum, by its path in the proto.

    A name that Python cannot spell, or that leads elsewhere, becomes `_r_NAME`.
    """
    top = Names(top_level_names(file))
    paths: dict[Path, Path] = {}

    def walk(message: DescriptorProto, path: Path, spelled: Path) -> None:
        """Add the types inside a message."""
        names = Names(member_names(message))
        for enum in message.enum_type:
            inner = (*path, enum.name)
            hidden = enum.name in MESSAGE_ATTRIBUTES
            paths[inner] = (*spelled, _spell(enum.name, names, hidden=hidden))
        for nested in message.nested_type:
            inner = (*path, nested.name)
            hidden = nested.name in _SET_LAST
            paths[inner] = (*spelled, _spell(nested.name, names, hidden=hidden))
            walk(nested, inner, paths[inner])

    for enum in file.enum_type:
        paths[(enum.name,)] = (_spell(enum.name, top),)
    for message in file.message_type:
        spelled = (_spell(message.name, top),)
        paths[(message.name,)] = spelled
        walk(message, (message.name,), spelled)
    return paths


def _spell(name: str, names: Names, *, hidden: bool = False) -> str:
    return name if is_spellable(name) and not hidden else names.pick(f"_r_{name}")


def is_spellable(name: str) -> bool:
    """Return True if Python code and stubs can use the name for a member of a module or class."""
    return is_plain(name) and name not in PYTHON_ATTRIBUTES


def member_names(message: DescriptorProto) -> Iterator[str]:
    """Yield the names of all direct members of a message."""
    yield from (field.name for field in message.field)
    yield from (nested.name for nested in message.nested_type)
    yield from (enum.name for enum in message.enum_type)
    yield from (extension.name for extension in message.extension)
    yield from (oneof.name for oneof in message.oneof_decl)
    yield from (value.name for enum in message.enum_type for value in enum.value)


def top_level_names(file: FileDescriptorProto) -> list[str]:
    """Return the names that a module of messages has from its own proto, later ones first.

    In this order protobuf lets one hide another.
    """
    names = [message.name for message in file.message_type]
    names += [extension.name for extension in file.extension]
    names += [field_number(extension.name) for extension in file.extension]
    names += [enum.name for enum in file.enum_type]
    names += [value.name for enum in file.enum_type for value in enum.value]
    return names


def field_number(name: str) -> str:
    """Return the constant that has the number of a field or an extension."""
    return f"{name.upper()}_FIELD_NUMBER"


def every_name(file: FileDescriptorProto) -> set[str]:
    """Return all names in a proto: none of them can hide a name that is not among them."""
    names = {*top_level_names(file), *(service.name for service in file.service)}

    def walk(messages: Iterable[DescriptorProto]) -> None:
        for message in messages:
            names.update(member_names(message))
            names.update(field_number(field.name) for field in message.field)
            names.update(field_number(field.name) for field in message.extension)
            walk(message.nested_type)

    walk(file.message_type)
    return names


def enum_helpers(file: FileDescriptorProto) -> dict[str, tuple[str, str]]:
    """Return names for the two extra classes that a stub has for each enum, by its full name."""
    helpers: dict[str, tuple[str, str]] = {}

    def name(enums: Iterable[EnumDescriptorProto], names: Names, scope: str) -> None:
        for enum in enums:
            pair = (names.pick(f"_{enum.name}"), names.pick(f"_{enum.name}EnumTypeWrapper"))
            helpers[f"{scope}{enum.name}"] = pair

    def walk(messages: Iterable[DescriptorProto], scope: str) -> None:
        for message in messages:
            inner = f"{scope}{message.name}."
            name(message.enum_type, Names(member_names(message)), inner)
            walk(message.nested_type, inner)

    scope = f"{file.package}." if file.package else ""
    name(file.enum_type, Names(top_level_names(file)), scope)
    walk(file.message_type, scope)
    return helpers


def public_names(
    file: FileDescriptorProto, files: Mapping[str, FileDescriptorProto]
) -> dict[str, str]:
    """Return the names that public imports add to a proto's module, each with its proto.

    If two have the same name, the later import wins, and the proto's own precedes both. As with
    `from ... import *`, names that begin with an underscore are not imported.
    """
    own = set(top_level_names(file))
    return {name: proto for name, proto in _imported(file, files).items() if name not in own}


def _imported(
    file: FileDescriptorProto, files: Mapping[str, FileDescriptorProto]
) -> dict[str, str]:
    names: dict[str, str] = {}
    for index in file.public_dependency:
        public = files[file.dependency[index]]
        inside = _imported(public, files) | dict.fromkeys(top_level_names(public), public.name)
        # A module's DESCRIPTOR is its own, even if a message of that name was imported.
        names |= {
            name: proto
            for name, proto in inside.items()
            if not name.startswith("_") and name != "DESCRIPTOR"
        }
    return names


def unspellable(
    file: FileDescriptorProto, files: Mapping[str, FileDescriptorProto]
) -> list[tuple[Path, str, bool]]:
    """Yield types with another name in Python: the path, that name, and True for an enum.

    Those from public imports are included.
    """
    paths = type_paths(file)
    enums = set(enum_paths(file))
    found = [
        (path, spelled[-1], path in enums)
        for path, spelled in paths.items()
        if path[-1] != spelled[-1]
    ]
    for name, spelled, _ in public_spellings(file, files):
        if name != spelled:
            found.append(((name,), spelled, False))
    return found


def public_spellings(
    file: FileDescriptorProto, files: Mapping[str, FileDescriptorProto]
) -> list[tuple[str, str, str]]:
    """Yield names from public imports, with their names in Python and their protos."""
    own = set(top_level_names(file)) | {spelled[0] for spelled in type_paths(file).values()}
    found = []
    for name, proto in public_names(file, files).items():
        (spelled,) = type_paths(files[proto]).get((name,), (name,))
        if is_spellable(spelled) and spelled not in own:
            found.append((name, spelled, proto))
    return found


def enum_paths(file: FileDescriptorProto) -> Iterator[Path]:
    """Yield the paths of all enums."""

    def walk(messages: Iterable[DescriptorProto], outer: Path) -> Iterator[Path]:
        for message in messages:
            path = (*outer, message.name)
            yield from ((*path, enum.name) for enum in message.enum_type)
            yield from walk(message.nested_type, path)

    yield from ((enum.name,) for enum in file.enum_type)
    yield from walk(file.message_type, ())

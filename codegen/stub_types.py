"""The names that a stub uses for modules, classes and field types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.unknown_fields import UnknownFieldSet

from .layout import Layout
from .names import Names
from .spelling import (
    Path,
    enum_helpers,
    every_name,
    is_repeated,
    public_names,
    public_spellings,
    type_paths,
)

_SCALARS = {
    FieldDescriptor.CPPTYPE_INT32: "int",
    FieldDescriptor.CPPTYPE_INT64: "int",
    FieldDescriptor.CPPTYPE_UINT32: "int",
    FieldDescriptor.CPPTYPE_UINT64: "int",
    FieldDescriptor.CPPTYPE_DOUBLE: "float",
    FieldDescriptor.CPPTYPE_FLOAT: "float",
    FieldDescriptor.CPPTYPE_BOOL: "bool",
}


# mypy-protobuf's options for a field: the types of it, its keys and its values, each alone or in
# a message. https://github.com/nipunn1313/mypy-protobuf#types-from-protobuf-options
_CASTS = {1151: 0, 1152: 1, 1153: 2}
_ALL_CASTS = 1154


@dataclass(frozen=True)
class FieldType:
    """The annotations of one field."""

    value: str
    """The type of its value when read."""
    argument: str
    """The type that the constructor takes, without None."""
    writable: bool
    """True if it can be assigned to; messages and containers cannot."""


class SchemaError(Exception):
    """protobuf's runtime refuses what protoc has compiled."""


class Schema:
    """All protos of a run, linked, and how Python spells their types."""

    def __init__(self, files: Mapping[str, FileDescriptorProto], layout: Layout) -> None:
        self.files = files
        self.layout = layout
        self._paths: dict[str, dict[Path, Path]] = {}

    @cached_property
    def linked(self) -> dict[str, FileDescriptor]:
        """The descriptor of each file; made on first use, imports first."""
        pool = DescriptorPool()
        linked = {}
        for file in self.files.values():
            try:
                # A pool does not find a file by a name that is not ASCII.
                linked[file.name] = pool.AddSerializedFile(file.SerializeToString())
            except (TypeError, ValueError) as error:
                raise SchemaError(
                    f"{file.name}: the installed protobuf cannot load it: {error}"
                ) from error
        return linked

    def spelled(self, descriptor: Descriptor | EnumDescriptor) -> Path:
        """Return the names that lead to a class from its module."""
        proto = descriptor.file.name
        if proto not in self._paths:
            self._paths[proto] = type_paths(self.files[proto])
        path: list[str] = []
        outer: Descriptor | EnumDescriptor | None = descriptor
        while outer is not None:
            path.insert(0, outer.name)
            outer = outer.containing_type
        return self._paths[proto][tuple(path)]


class StubTypes:
    """The references of one stub, by module-level names that its proto does not use."""

    def __init__(self, file: FileDescriptorProto, schema: Schema) -> None:
        self._file = file
        self._schema = schema
        self.public = public_names(file, schema.files)
        self.proto_names = every_name(file) | set(self.public)
        self.names = Names(self.proto_names)
        self.names.add(*(name for path in type_paths(file).values() for name in path))
        self.helpers = enum_helpers(file)
        """The names of the two classes behind each enum, by its full name."""
        self.names.add(*(name for pair in self.helpers.values() for name in pair))
        self._modules: dict[str, str] = {}
        self._protos: dict[str, str] = {}
        self._classes: dict[str, str] = {}

    def name(self, module: str, name: str) -> str:
        """Return the reference to `name` in a module of Python or protobuf."""
        if module not in self._modules:
            self._modules[module] = self.names.pick("_" + module.rpartition(".")[2])
        return f"{self._modules[module]}.{name}"

    def builtin(self, name: str) -> str:
        return self.name("builtins", name)

    def typing(self, name: str) -> str:
        return self.name("typing", name)

    def cls(self, descriptor: Descriptor | EnumDescriptor) -> str:
        """Return the reference to a class of this proto or another."""
        outermost, *inner = self._schema.spelled(descriptor)
        proto = descriptor.file.name
        if proto == self._file.name:
            return ".".join((self.own(outermost), *inner))
        layout = self._schema.layout
        if not layout.importable(self._file.name, proto):
            return self.typing("Any")
        if proto not in self._protos:
            parts = layout.module(proto).split(".")
            wishes = ["_".join(parts[start:]) for start in reversed(range(len(parts)))]
            # Inside a class Python mangles a name with two underscores.
            self._protos[proto] = self.names.pick(*("_" + wish.lstrip("_") for wish in wishes))
        return ".".join((self._protos[proto], outermost, *inner))

    def own(self, outermost: str) -> str:
        """Return a name for a class of this module that no member of a class hides."""
        if outermost not in self._classes:
            self._classes[outermost] = self.names.pick(f"Global___{outermost}")
        return self._classes[outermost]

    def enum(self, descriptor: EnumDescriptor) -> str:
        """Return the type of an enum's values."""
        cls = self.cls(descriptor)
        return cls if cls == self.typing("Any") else f"{cls}.ValueType"

    def single(self, field: FieldDescriptor) -> str:
        """Return the type of one value of a field."""
        if field.enum_type is not None:
            return self.enum(field.enum_type)
        if field.message_type is not None:
            return self.cls(field.message_type)
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            return self.builtin("bytes" if field.type == FieldDescriptor.TYPE_BYTES else "str")
        return self.builtin(_SCALARS[field.cpp_type])

    def field(self, field: FieldDescriptor) -> FieldType:
        """Return the types of a field or an extension."""
        cast, cast_key, cast_value = (path and self._cast(path) for path in _casts(field))
        if cast:
            return FieldType(cast, cast, field.message_type is None and not is_repeated(field))
        if not is_repeated(field):
            single = self.single(field)
            return FieldType(single, single, field.message_type is None)
        containers = "google.protobuf.internal.containers"
        message = field.message_type
        if message is not None and message.GetOptions().map_entry:
            key, value = (message.fields_by_name[name] for name in ("key", "value"))
            kind = "ScalarMap" if value.message_type is None else "MessageMap"
            pair = (cast_key or self.single(key), cast_value or self.single(value))
            types = f"[{', '.join(pair)}]"
            mapping = self.name("collections.abc", "Mapping")
            return FieldType(self.name(containers, kind) + types, mapping + types, False)
        kind = (
            "RepeatedScalarFieldContainer" if message is None else "RepeatedCompositeFieldContainer"
        )
        types = f"[{self.single(field)}]"
        iterable = self.name("collections.abc", "Iterable")
        return FieldType(self.name(containers, kind) + types, iterable + types, False)

    def _cast(self, path: str) -> str:
        """Return the user's type: `a/b.Name` is `Name` in the module `a.b`."""
        module, _, name = path.rpartition(".")
        return self.name(module.replace("/", "."), name)

    # The beginning and the end of a module

    def imports(self) -> list[str]:
        """Return the import statements of everything that has been referred to."""
        lines = []
        for module, alias in self._modules.items():
            package, _, name = module.rpartition(".")
            lines.append(
                f"from {package} import {name} as {alias}"
                if package
                else f"import {name} as {alias}"
            )
        layout, here = self._schema.layout, self._file.name
        lines += [layout.statement(here, proto, alias) for proto, alias in self._protos.items()]
        for _, name, proto in public_spellings(self._file, self._schema.files):
            if layout.importable(here, proto):
                lines.append(f"from {layout.path(here, proto)} import {name} as {name}")
        return sorted(lines)

    def aliases(self) -> list[str]:
        """Return the definitions of the names from own()."""
        alias = self.typing("TypeAlias") if self._classes else ""
        return [f"{name}: {alias} = {outermost}" for outermost, name in self._classes.items()]


def _casts(field: FieldDescriptor) -> tuple[str, str, str]:
    """Return the types that options give for the field, its keys and its values."""
    casts = ["", "", ""]
    if field.has_options:
        options = UnknownFieldSet(field.GetOptions())
        for option in (options[index] for index in range(len(options))):
            if option.field_number in _CASTS:
                casts[_CASTS[option.field_number]] = option.data.decode()
            elif option.field_number == _ALL_CASTS:
                # A message whose first three fields are strings, like those of this option.
                parsed = FileDescriptorProto.FromString(option.data)
                casts = [parsed.name, parsed.package, "".join(parsed.dependency)]
    return casts[0], casts[1], casts[2]

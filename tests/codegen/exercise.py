"""Programs that use everything generated for a schema, as a user would write them.

Type checkers read such a program in strict mode, and it is run: so the types must say what is
there.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from localrpc_codegen.names import is_plain
from localrpc_codegen.spelling import ENUM_ATTRIBUTES, MESSAGE_ATTRIBUTES
from localrpc_codegen.stub_types import Schema

HEAD = """
from __future__ import annotations

from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.protobuf.internal import containers
from typing_extensions import assert_type

# What every message has, even if one has a field or type of that name.
BASE: Any = Empty.__mro__[1]


def parse(kind: Any, data: bytes) -> Any:
    return getattr(super(kind, kind), "FromString")(data)

"""

VALUES = {
    FieldDescriptor.CPPTYPE_DOUBLE: ("0.5", "float"),
    FieldDescriptor.CPPTYPE_FLOAT: ("0.5", "float"),
    FieldDescriptor.CPPTYPE_BOOL: ("True", "bool"),
}


def program(schema: Schema, package: str, protos: list[str]) -> str:
    """The text of a program that imports the modules of some protos from `package`, as `a.`."""
    return _Writer(schema, package, protos).write()


class _Writer:
    def __init__(self, schema: Schema, package: str, protos: list[str]) -> None:
        self._schema = schema
        self._protos = protos
        layout = schema.layout
        self._modules = {proto: f"m{number}" for number, proto in enumerate(protos)}
        self._head = HEAD.lstrip("\n") + "".join(
            f"import {package}{layout.module(proto)} as {alias}\n"
            for proto, alias in self._modules.items()
        )
        known = [proto for proto in schema.files if proto.startswith("google/protobuf/")]
        for proto in known:
            self._modules[proto] = layout.module(proto)
            self._head += f"import {layout.module(proto)}\n"

    def write(self) -> str:
        lines = [self._head]
        for proto in self._protos:
            file = self._schema.linked[proto]
            messages = [
                message
                for top in file.message_types_by_name.values()
                for message in _with_nested(top)
            ]
            for number, message in enumerate(messages):
                lines += self._message(message, f"message_{self._modules[proto]}_{number}")
            enums = [*file.enum_types_by_name.values()]
            enums += [enum for message in messages for enum in message.enum_types_by_name.values()]
            for number, enum in enumerate(enums):
                lines += self._enum(enum, f"enum_{self._modules[proto]}_{number}")
            extensions = list(file.extensions_by_name.values())
            extensions += [
                each for message in messages for each in message.extensions_by_name.values()
            ]
            lines += self._extensions(proto, extensions)
        names = [line[4:].partition("(")[0] for line in lines if line.startswith("def ")]
        return "\n".join([*lines, *(f"{name}()" for name in names), ""])

    # Expressions

    def _cls(self, descriptor: Descriptor | EnumDescriptor) -> str:
        path = self._schema.spelled(descriptor)
        return ".".join((self._modules[descriptor.file.name], *path))

    def _single(self, field: FieldDescriptor) -> tuple[str, str]:
        """A value for a field, and the type of it."""
        if field.enum_type is not None:
            cls = self._cls(field.enum_type)
            return f'{cls}.Value("{field.enum_type.values[-1].name}")', f"{cls}.ValueType"
        if field.message_type is not None:
            return f"{self._cls(field.message_type)}()", self._cls(field.message_type)
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            text = field.type == FieldDescriptor.TYPE_STRING
            return ('"ä"', "str") if text else ('b"x"', "bytes")
        return VALUES.get(field.cpp_type, ("1", "int"))

    def _value(self, field: FieldDescriptor) -> tuple[str, str]:
        value, kind = self._single(field)
        if not field.is_repeated:
            return value, kind
        message = field.message_type
        if message is not None and message.GetOptions().map_entry:
            pairs = [self._single(message.fields_by_name[name]) for name in ("key", "value")]
            name = (
                "ScalarMap"
                if message.fields_by_name["value"].message_type is None
                else "MessageMap"
            )
            return (
                f"{{{pairs[0][0]}: {pairs[1][0]}}}",
                f"containers.{name}[{pairs[0][1]}, {pairs[1][1]}]",
            )
        name = "Scalar" if message is None else "Composite"
        return f"[{value}, {value}]", f"containers.Repeated{name}FieldContainer[{kind}]"

    # Checks

    def _message(self, message: Descriptor, name: str) -> Iterator[str]:
        cls = self._cls(message)
        yield f"\n\ndef {name}() -> None:"
        chosen: set[str] = set()
        given: list[FieldDescriptor] = []
        for field in message.fields:
            oneof = field.containing_oneof
            if oneof is None or oneof.name not in chosen:
                given.append(field)
                chosen.update([oneof.name] if oneof is not None else [])
        plain = [field for field in given if is_plain(field.name)]
        others = [field for field in given if not is_plain(field.name)]
        arguments = [f"{field.name}={self._value(field)[0]}" for field in plain]
        if others:
            values = ", ".join(f'"{field.name}": {self._value(field)[0]}' for field in others)
            yield f"    others: dict[str, Any] = {{{values}}}"
            arguments.append("**others")
        yield f"    message = {cls}({', '.join(arguments)})"
        yield f"    assert_type(message, {cls})"
        yield f"    again: {cls} = parse({cls}, BASE.SerializeToString(message))"
        yield "    assert again == message"
        members = _members(message)
        for field in given:
            yield from self._field(message, field, members)
        if "WhichOneof" not in members:
            for oneof in message.oneofs:
                inside = [field.name for field in oneof.fields]
                yield f'    assert message.WhichOneof("{oneof.name}") in {inside!r}'

    def _field(
        self, message: Descriptor, field: FieldDescriptor, members: set[str]
    ) -> Iterator[str]:
        value, kind = self._value(field)
        read = f"message.{field.name}"
        readable = is_plain(field.name) and not field.name.startswith("__")
        if not readable:
            read = f'getattr(message, "{field.name}")'
            yield f"    assert {read} == {value}"
        elif field.enum_type is not None:
            # The type of an enum's values exists for type checkers alone.
            variable = f"f{field.number}"
            yield f"    {variable}: {kind} = {read}"
            yield f"    assert {variable} == {value}"
        elif field.is_repeated:
            yield f"    r{field.number}: {kind} = {read}"
            yield f"    assert r{field.number} == {value}"
        else:
            yield f"    assert_type({read}, {kind})"
            yield f"    assert {read} == {value}"
        if readable and field.message_type is None and not field.is_repeated:
            yield f"    message.{field.name} = {value}"
        if field.has_presence and "HasField" not in members:
            yield f'    assert message.HasField("{field.name}")'
        if "ClearField" not in members:
            yield f'    again.ClearField("{field.name}")'
        number = f"{field.name.upper()}_FIELD_NUMBER"
        if number not in members:
            others = [each.name for each in message.fields]
            if sum(each.upper() == field.name.upper() for each in others) == 1:
                yield f"    assert {self._cls(message)}.{number} == {field.number}"

    def _enum(self, enum: EnumDescriptor, name: str) -> Iterator[str]:
        cls = self._cls(enum)
        yield f"\n\ndef {name}() -> None:"
        first = enum.values[0]
        yield f'    value: {cls}.ValueType = {cls}.Value("{first.name}")'
        yield f'    assert {cls}.Name(value) == "{first.name}"'
        scope = cls.rpartition(".")[0]
        for number, each in enumerate(enum.values):
            if not is_plain(each.name) or each.name.startswith("__"):
                continue
            if each.name not in ENUM_ATTRIBUTES | {"ValueType"}:
                yield f"    v{number}: {cls}.ValueType = {cls}.{each.name}"
                yield f"    assert v{number} == {each.number}"
            hidden = enum.containing_type is not None and each.name in MESSAGE_ATTRIBUTES
            if not hidden and not self._replaced(enum, each.name):
                yield f"    w{number}: {cls}.ValueType = {scope}.{each.name}"
                yield f"    assert w{number} == {each.number}"

    def _replaced(self, enum: EnumDescriptor, name: str) -> bool:
        """Return True if an extension's number has the name of a value of the module."""
        extensions = enum.file.extensions_by_name if enum.containing_type is None else {}
        return name in {f"{each.upper()}_FIELD_NUMBER" for each in extensions}

    def _extensions(self, proto: str, extensions: list[FieldDescriptor]) -> Iterator[str]:
        yield f"\n\ndef extensions_{self._modules[proto]}() -> None:"
        yield "    pass"
        for number, extension in enumerate(extensions):
            target = extension.containing_type
            assert target is not None
            scope = self._modules[proto]
            if extension.extension_scope is not None:
                scope = self._cls(extension.extension_scope)
                if extension.name in MESSAGE_ATTRIBUTES:
                    continue
            hidden = not is_plain(extension.name) or extension.name.startswith("__")
            if hidden or "Extensions" in _members(target):
                continue
            value, kind = self._value(extension)
            yield f"    e{number} = {self._cls(target)}()"
            read = f"e{number}.Extensions[{scope}.{extension.name}]"
            if extension.is_repeated:
                yield f"    t{number}: {kind} = {read}"
                yield f"    t{number}.extend({value})"
            elif extension.message_type is None:
                yield f"    t{number}: {kind} = {value}"
                yield f"    {read} = t{number}"
            else:
                yield f"    t{number}: {kind} = {read}"
                yield f"    BASE.SetInParent(t{number})"
            yield f"    assert len(BASE.ListFields(e{number})) == 1"


def _with_nested(message: Descriptor) -> Iterator[Descriptor]:
    if not message.GetOptions().map_entry:
        yield message
        for nested in message.nested_types_by_name.values():
            yield from _with_nested(nested)


def _members(message: Descriptor) -> set[str]:
    """Every name right inside a message."""
    names = {field.name for field in message.fields} | {oneof.name for oneof in message.oneofs}
    names |= set(message.nested_types_by_name) | set(message.enum_types_by_name)
    names |= set(message.enum_values_by_name) | set(message.extensions_by_name)
    return names

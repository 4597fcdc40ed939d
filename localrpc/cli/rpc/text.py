"""Writes descriptors as in a .proto file, with full names of types."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    MethodDescriptor,
    ServiceDescriptor,
)
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

from localrpc.cli.rpc.schema import Symbol

_LABELS = {
    FieldDescriptorProto.LABEL_REPEATED: "repeated ",
    FieldDescriptorProto.LABEL_REQUIRED: "required ",
}


def text_of(symbol: Symbol) -> str:
    """Return the definition of a service, method, message or enum, below its full name."""
    name = symbol.full_name
    if isinstance(symbol, ServiceDescriptor):
        service = ServiceDescriptorProto()
        symbol.CopyToProto(service)
        lines = _block(f"service {service.name}", map(_method, service.method))
    elif isinstance(symbol, MethodDescriptor):
        method = MethodDescriptorProto()
        symbol.CopyToProto(method)
        lines = iter([_method(method)])
        name = f"{symbol.containing_service.full_name}/{symbol.name}"
    elif isinstance(symbol, Descriptor):
        message, file = DescriptorProto(), FileDescriptorProto()
        symbol.CopyToProto(message)
        symbol.file.CopyToProto(file)
        # proto2 has `optional` before every field that is neither of the others.
        lines = _message(message, proto2=file.syntax in ("", "proto2"))
    else:
        assert isinstance(symbol, EnumDescriptor)
        enum = EnumDescriptorProto()
        symbol.CopyToProto(enum)
        lines = _enum(enum)
    return "\n".join([f"// {name}", *lines])


def _block(head: str, lines: Iterable[str]) -> Iterator[str]:
    inside = [f"  {line}" for line in lines]
    yield from [f"{head} {{", *inside, "}"] if inside else [f"{head} {{}}"]


def _method(method: MethodDescriptorProto) -> str:
    takes = _stream(method.client_streaming) + method.input_type.removeprefix(".")
    gives = _stream(method.server_streaming) + method.output_type.removeprefix(".")
    deprecated = " { option deprecated = true; }" if method.options.deprecated else ";"
    return f"rpc {method.name}({takes}) returns ({gives}){deprecated}"


def _stream(streaming: bool) -> str:
    return "stream " if streaming else ""


def _message(message: DescriptorProto, *, proto2: bool) -> Iterator[str]:
    return _block(f"message {message.name}", _inside(message, proto2=proto2))


def _inside(message: DescriptorProto, *, proto2: bool) -> Iterator[str]:
    maps = {each.name: each for each in message.nested_type if each.options.map_entry}
    for nested in message.nested_type:
        if nested.name not in maps:
            yield from _message(nested, proto2=proto2)
    for enum in message.enum_type:
        yield from _enum(enum)
    oneofs: dict[int, list[str]] = {}
    for field in message.field:
        if not field.HasField("oneof_index") or field.proto3_optional:
            yield _field(field, _label(field, proto2=proto2), maps)
        elif field.oneof_index not in oneofs:
            index = field.oneof_index
            oneofs[index] = [_field(f, "", maps) for f in message.field if _in_oneof(f, index)]
            yield from _block(f"oneof {message.oneof_decl[index].name}", oneofs[index])


def _in_oneof(field: FieldDescriptorProto, index: int) -> bool:
    return field.HasField("oneof_index") and field.oneof_index == index


def _label(field: FieldDescriptorProto, *, proto2: bool) -> str:
    return _LABELS.get(field.label) or ("optional " if proto2 or field.proto3_optional else "")


def _field(field: FieldDescriptorProto, label: str, maps: dict[str, DescriptorProto]) -> str:
    entry = maps.get(field.type_name.rpartition(".")[2])
    if entry is None:
        kind = label + _type(field)
    else:
        kind = f"map<{_type(entry.field[0])}, {_type(entry.field[1])}>"
    options = []
    if field.HasField("default_value"):
        options.append(f"default = {_default(field)}")
    if field.options.deprecated:
        options.append("deprecated = true")
    return f"{kind} {field.name} = {field.number}{_brackets(options)};"


def _default(field: FieldDescriptorProto) -> str:
    if field.type == field.TYPE_STRING:
        return json.dumps(field.default_value, ensure_ascii=False)
    # The default of bytes is escaped already.
    return f'"{field.default_value}"' if field.type == field.TYPE_BYTES else field.default_value


def _type(field: FieldDescriptorProto) -> str:
    name: str = FieldDescriptorProto.Type.Name(field.type)
    return field.type_name.removeprefix(".") or name.removeprefix("TYPE_").lower()


def _enum(enum: EnumDescriptorProto) -> Iterator[str]:
    values = [
        f"{value.name} = {value.number}"
        f"{_brackets(['deprecated = true'] if value.options.deprecated else [])};"
        for value in enum.value
    ]
    return _block(f"enum {enum.name}", values)


def _brackets(options: list[str]) -> str:
    return f" [{', '.join(options)}]" if options else ""

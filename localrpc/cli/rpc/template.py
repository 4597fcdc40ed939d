"""A request to fill in: every field of a message with its default value."""

from __future__ import annotations

import base64
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.message_factory import GetMessageClass


def template_of(descriptor: Descriptor, outer: tuple[str, ...] = ()) -> Any:
    """Return an example as JSON: lists and maps have one entry, a oneof its first member.

    A message nested in its own type, one of `outer`, is left out.
    """
    if descriptor.file.package == "google.protobuf":
        # The JSON of these types is not made of their fields.
        return json_format.MessageToDict(GetMessageClass(descriptor)())
    path = (*outer, descriptor.full_name)
    template = {}
    for field in descriptor.fields:
        oneof = field.containing_oneof
        if oneof is None or oneof.fields[0].name == field.name:
            kind = field.message_type
            if kind is None or _held(kind).full_name not in path:
                template[field.json_name] = _field(field, path)
    return template


def _held(kind: Any) -> Any:
    """Return the message type that a field holds; for a map, the type of its values."""
    if not kind.GetOptions().map_entry:
        return kind
    return kind.fields_by_name["value"].message_type or kind


def _is_repeated(field: Any) -> bool:
    """`label` is deprecated, and all that protobuf has before 6.31."""
    if hasattr(field, "is_repeated"):
        return bool(field.is_repeated)
    return bool(field.label == field.LABEL_REPEATED)


def _field(field: Any, path: tuple[str, ...]) -> Any:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        key, value = kind.fields_by_name["key"], kind.fields_by_name["value"]
        return {_key(_scalar(key)): _field(value, path)}
    value = _scalar(field) if kind is None else template_of(kind, path)
    return [value] if _is_repeated(field) else value


def _key(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _scalar(field: Any) -> Any:
    """Return the default; for an element of a list, the zero of its type."""
    default = None if _is_repeated(field) else field.default_value
    if field.enum_type is not None:
        values = field.enum_type.values_by_number
        return (values[default] if default is not None else field.enum_type.values[0]).name
    if field.type == field.TYPE_BYTES:
        return base64.b64encode(default or b"").decode()
    if default is None:
        return {field.CPPTYPE_STRING: "", field.CPPTYPE_BOOL: False}.get(field.cpp_type, 0)
    return default

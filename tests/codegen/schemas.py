"""Random protos that protoc accepts, with every name that may mean something to Python.

`schema(seed)` is the same text for the same seed. Its files lie in the folder `sSEED`, and its
packages begin with `sSEED`, so that many schemas can be compiled at once.
"""

from __future__ import annotations

import builtins
import keyword
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from google.protobuf.empty_pb2 import Empty
from localrpc_codegen.layout import Imports, Layout
from localrpc_codegen.names import LOCALS

PLAIN = ["a", "b", "A", "B", "Item", "name", "value", "Kind", "UNKNOWN", "Outer", "Inner", "foo"]
KEYWORDS = [*keyword.kwlist, "__debug__"]
SOFT = ["match", "case", "type", "_"]
BUILTINS = [name for name in dir(builtins) if name[0] != "_"]
METHODS = [name for name in dir(Empty) if not name.startswith("__")] + ["mro"]
ENUMS = ["Name", "Value", "keys", "values", "items", "ValueType", "V"]
GENERATED = [
    *sorted(LOCALS),
    *("grpc", "Any", "ABC", "TYPE_CHECKING", "overload", "Final", "Iterator", "AsyncIterator"),
    *("deprecated", "abstractmethod", "GenericAlias", "UnaryUnaryMultiCallable", "typing"),
    *("google", "warnings", "import_module", "_globals", "_descriptor", "_descriptor_pool"),
    *("_builder", "_sym_db", "_runtime_version", "_symbol_database", "_message", "_builtins"),
    *("_typing", "_typing_extensions", "_containers", "_abc", "_enum_type_wrapper", "_importlib"),
    *("_extension_dict", "Global___A", "Global___Item", "_A", "_Kind", "_KindEnumTypeWrapper"),
    *("_r_None", "_r_class", "A_FIELD_NUMBER", "VALUE_FIELD_NUMBER", "AStub", "AServicer"),
    *("AAsyncStub", "A_SERVICE", "add_AServicer_to_server", "A_pb2", "_A_pb2", "a_pb2", "self_"),
    *("reveal_type", "__private", "__A", "__", "__doc__", "__name__", "annotations", "message"),
    *("__class__", "__init__", "__all__", "__file__", "__slots__", "__module__", "__dict__"),
    *("descriptor", "containers", "builtins", "abc", "Global___", "enum_type_wrapper"),
]
POOLS = [PLAIN, PLAIN, KEYWORDS, SOFT, BUILTINS, METHODS, ENUMS, GENERATED]
# What the language of protos itself reads as something else at the start of a value.
NO_VALUES = frozenset({"option", "reserved", "DESCRIPTOR"})

# A message inside another replaces what Python itself needs: protobuf's own classes break.
NOT_INSIDE = frozenset({"__init__", "__class__", "__slots__", "__dict__", "__module__"})

FOLDERS = ["", "", "a", "b", "global", "in", "2023", "my types", "c++", "größe", "a-b", "x_pb2"]
FOLDERS += ["grpc", "typing", "A_pb2", "a/class", "print", "v1", "async/await", "__private"]
FILES = ["a", "b", "A", "x", "global", "2fa", "my types", "a+b", "straße", "x.y", "__init__"]
FILES += ["x_pb2", "None", "grpc", "a_localrpc", "_x", "__x", "builtins", "types"]

# Of protobuf's own protos.
KNOWN = ["any.Any", "duration.Duration", "empty.Empty", "field_mask.FieldMask", "struct.Struct"]
KNOWN += ["struct.ListValue", "timestamp.Timestamp", "wrappers.StringValue", "type.Enum"]

SCALARS = ["double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32"]
SCALARS += ["fixed64", "sfixed32", "sfixed64", "bool", "string", "bytes"]
KEYS = ["int32", "int64", "uint32", "uint64", "sint32", "fixed64", "bool", "string"]
COMMENTS = [
    '"quoted"',
    "ends in \\\\",
    '\\"\\"\\"',
    "\\\\N{BULLET} {x} %s $name",
    "Grüße 🌍",
    "two\n// lines",
]


@dataclass
class File:
    """One proto, and what a file that imports it can refer to."""

    name: str
    package: str
    syntax: str
    text: str = ""
    messages: list[str] = field(default_factory=list)
    extendable: list[str] = field(default_factory=list)
    enums: list[tuple[str, bool]] = field(default_factory=list)
    """Full names, each with True if a field of proto3 may have the type."""
    public: list[File] = field(default_factory=list)

    def visible(self) -> Iterator[File]:
        """The file and what it imports publicly."""
        yield self
        for file in self.public:
            yield from file.visible()


def schema(seed: int) -> dict[str, str]:
    """The texts of the protos of one schema, by their names."""
    return {file.name: file.text for file in _Maker(seed).files()}


class _Scope:
    """The names taken in one scope of a proto, by every rule that protoc has for them."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._taken: set[str] = set()

    def take(self, name: str) -> bool:
        """False if the name is taken, or one that is the same in JSON or but for its case."""
        plain = "~" + name.lower().replace("_", "")
        free = not self._taken & {name, plain}
        self._taken |= {name, plain}
        return free

    def name(self, without: frozenset[str] = frozenset()) -> str:
        """A name that nothing in the scope has."""
        while True:
            name = self._draw.choice(self._draw.choice(POOLS))
            if self._chance():
                name += self._draw.choice("_1Ax")
            if name not in without and self.take(name):
                return name

    def _chance(self) -> bool:
        return self._draw.random() < 0.1


@dataclass
class _Outline:
    """A message before it has fields."""

    name: str
    full_name: str
    scope: _Scope
    nested: list[_Outline]
    enums: list[str]
    extendable: bool


class _Maker:
    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._root = f"s{seed}"
        self._modules: set[str] = set()
        self._extensions = 1000

    def _chance(self, odds: float) -> bool:
        return self._draw.random() < odds

    def files(self) -> list[File]:
        made: list[File] = []
        for number in range(self._draw.randint(1, 4)):
            made.append(self._file(self._new_name(), made, number))
        return made

    def _new_name(self) -> str:
        while True:
            folder = self._draw.choice(FOLDERS)
            parts = [self._root, *([folder] if folder else []), self._draw.choice(FILES) + ".proto"]
            name = "/".join(parts)
            layout = Layout({name}, Imports.RELATIVE, tidy=True)
            # A folder `x_pb2` gets another name, which no other folder may have.
            module = layout.module(name).replace("x_pb2_.", "x_pb2.")
            if module not in self._modules:
                self._modules.add(module)
                return name

    def _file(self, name: str, before: list[File], number: int) -> File:
        syntax = self._draw.choice(['syntax = "proto3"', 'syntax = "proto2"', 'edition = "2023"'])
        # A separate package each, as types of one package may not have the same name.
        word = self._draw.choice(self._draw.choice(POOLS))
        file = File(name, f"{self._root}.p{number}_.{word}", syntax)
        lines = []
        visible = [file]
        for other in before:
            if self._chance(0.6):
                public = self._chance(0.5)
                if public:
                    file.public.append(other)
                visible += other.visible()
                lines.append(f'import {"public " if public else ""}"{other.name}";')
        for known in self._draw.sample(KNOWN, self._draw.choice([0, 0, 1, 2])):
            module, name_of = known.split(".")
            path = f"google/protobuf/{module}.proto"
            if not any(path in line for line in lines):
                lines.append(f'import "{path}";')
            visible.append(File(path, "", "", messages=[f"google.protobuf.{name_of}"]))
        if self._chance(0.08):
            lines.append("option deprecated = true;")
        if self._chance(0.05) and "2023" not in syntax:
            lines.append("option py_generic_services = true;")
        scope = _Scope(self._draw)
        # The names of types are chosen first, so that fields can refer to later ones.
        messages = [
            self._outline(scope, file, file.package, 0) for _ in range(self._draw.randint(0, 4))
        ]
        body: list[str] = []
        for _ in range(self._draw.randint(0, 2)):
            body += self._enum(scope, file, file.package)
        self._visible = visible
        self._label = "optional" if "proto2" in syntax else ""
        for outline in messages:
            body += self._message(outline, file, 0)
        if "proto3" not in syntax:
            body += self._extend(scope, "")
        for _ in range(self._draw.randint(0, 2)):
            body += self._service(scope)
        file.text = "\n".join([f"{syntax};", f"package {file.package};", *lines, *body, ""])
        return file

    # Types

    def _outline(self, scope: _Scope, file: File, outer: str, depth: int) -> _Outline:
        name = scope.name(NOT_INSIDE if depth else frozenset())
        full_name = f"{outer}.{name}"
        inside = _Scope(self._draw)
        extendable = "proto3" not in file.syntax and self._chance(0.3)
        nested, enums = [], []
        if depth < 3:
            count = self._draw.choice([0, 0, 1, 2])
            nested = [self._outline(inside, file, full_name, depth + 1) for _ in range(count)]
        if self._chance(0.4):
            enums = self._enum(inside, file, full_name)
        file.messages.append(full_name)
        if extendable:
            file.extendable.append(full_name)
        return _Outline(name, full_name, inside, nested, enums, extendable)

    def _enum(self, scope: _Scope, file: File, outer: str) -> list[str]:
        name = scope.name()
        # proto3 takes enums alone whose first value is 0, as these are, but none of proto2.
        file.enums.append((f"{outer}.{name}", "proto2" not in file.syntax))
        lines = [*self._comment(), f"enum {name} {{"]
        if self._chance(0.1):
            lines.append("  option deprecated = true;")
        used: set[str] = set()
        for number in range(self._draw.randint(1, 4)):
            # Values are names of the scope around the enum, and compared without its name.
            value = scope.name(NO_VALUES)
            plain = value.lower().replace("_", "")
            short = plain.removeprefix(name.lower().replace("_", "")) or plain
            if number and (short in used or plain in used):
                continue
            used |= {short, plain}
            mark = " [deprecated = true]" if self._chance(0.1) else ""
            lines += [*self._comment(), f"  {value} = {number}{mark};"]
        return [*lines, "}"]

    def _message(self, outline: _Outline, file: File, depth: int) -> list[str]:
        lines = [*self._comment(), f"message {outline.name} {{"]
        if self._chance(0.07):
            lines.append("option deprecated = true;")
        if outline.extendable:
            lines.append("extensions 1000 to max;")
        for nested in outline.nested:
            lines += self._message(nested, file, depth + 1)
        lines += outline.enums
        number = 0
        for _ in range(self._draw.choice([0, 1, 3, 6])):
            number += 1
            lines += self._field(outline.scope, file, number)
        if self._chance(0.3):
            lines.append(f"oneof {outline.scope.name()} {{")
            for _ in range(self._draw.randint(1, 3)):
                number += 1
                kind = self._type(file)
                lines.append(f"{kind} {outline.scope.name()} = {number};")
            lines.append("}")
        if "proto3" not in file.syntax:
            lines += self._extend(outline.scope, "  ")
        return [*lines, "}"]

    def _field(self, scope: _Scope, file: File, number: int) -> list[str]:
        name = scope.name()
        mark = " [deprecated = true]" if self._chance(0.07) else ""
        # upb loads no type `1Entry`, which a map `_1` would need.
        if self._chance(0.15) and _entry(name)[0].isalpha() and scope.take(_entry(name)):
            key = self._draw.choice(KEYS)
            return [f"map<{key}, {self._type(file)}> {name} = {number}{mark};"]
        group = f"G{name.lower()}"
        if self._chance(0.1) and "proto2" in file.syntax and scope.take(group):
            inside = f"{{ optional int32 {name} = 1; }}"
            return [f"optional group {group} = {number} {inside}"]
        labels = {"proto2": ["optional", "repeated"], "proto3": ["", "", "optional", "repeated"]}
        label = self._draw.choice(labels.get(file.syntax[10:16], ["", "repeated"]))
        return [*self._comment(), f"{label} {self._type(file)} {name} = {number}{mark};"]

    def _type(self, file: File) -> str:
        choice = self._draw.random()
        messages = [name for each in self._visible for name in each.messages]
        if choice < 0.35 and messages:
            return "." + self._draw.choice(messages)
        proto3 = "proto3" in file.syntax
        enums = [name for each in self._visible for name, fit in each.enums if fit or not proto3]
        if choice < 0.55 and enums:
            return "." + self._draw.choice(enums)
        return self._draw.choice(SCALARS)

    def _extend(self, scope: _Scope, margin: str) -> list[str]:
        targets = [name for each in self._visible for name in each.extendable]
        if not targets or self._chance(0.5):
            return []
        lines = [f"extend .{self._draw.choice(targets)} {{"]
        for _ in range(self._draw.randint(1, 3)):
            self._extensions += 1
            label = "repeated" if self._chance(0.3) else self._label
            name = scope.name(NO_VALUES)
            lines.append(f"{label} {self._type(self._visible[0])} {name} = {self._extensions};")
        return [*(margin + line for line in lines), margin + "}"]

    def _service(self, scope: _Scope) -> list[str]:
        messages = [name for each in self._visible for name in each.messages]
        lines = [*self._comment(), f"service {scope.name()} {{"]
        if self._chance(0.1):
            lines.append("  option deprecated = true;")
        inside = _Scope(self._draw)
        for _ in range(self._draw.randint(0, 5) if messages else 0):
            asks, answers = (
                f"({'stream ' if self._chance(0.4) else ''}.{self._draw.choice(messages)})"
                for _ in range(2)
            )
            mark = " { option deprecated = true; }" if self._chance(0.2) else ";"
            lines += [*self._comment(), f"  rpc {inside.name()} {asks} returns {answers}{mark}"]
        return [*lines, "}"]

    def _comment(self) -> list[str]:
        return [f"// {self._draw.choice(COMMENTS)}"] if self._chance(0.1) else []


def _entry(field: str) -> str:
    """The name of the message behind a map."""
    return "".join(part[:1].upper() + part[1:] for part in field.split("_")) + "Entry"

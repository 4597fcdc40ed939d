"""Writes the model as Python text, in the layout of ruff format."""

from __future__ import annotations

from .docs import docstring
from .layout import Layout, mypy_head
from .model import Arity, MessageRef, Method, Module, Service
from .names import Names, is_mangled, is_plain
from .parts import (
    ADDER,
    DEPRECATED_ATTRIBUTE,
    GENERIC,
    GENERICS,
    HEADER,
    LATER,
    METHOD,
    OVERLOAD,
    RUNTIME,
    SERVICER,
    STUB,
)
from .template import fill, shift

WIDTH = 88


def fit(head: str, items: list[str], tail: str, *, indent: int = 0) -> str:
    """Return `head`, the items in one line or one per line as the width allows, and `tail`."""
    line = head + ", ".join(items) + tail
    if indent + len(line) <= WIDTH:
        return line
    return "\n".join([head, *(f"    {item}," for item in items), tail])


def wrap(head: str, item: str, tail: str, *, indent: int) -> str:
    """Return the text as fit() does, for one item without a comma after it."""
    line = head + item + tail
    return line if indent + len(line) <= WIDTH else f"{head}\n    {item}\n{tail}"


def string(text: str) -> str:
    """Return a string literal; names in protobuf are ASCII identifiers with dots."""
    return f'"{text}"'


class Renderer:
    """Writes one module."""

    def __init__(self, module: Module, layout: Layout, python: tuple[int, int]) -> None:
        self._module = module
        self._layout = layout
        self._python = python
        self._names = Names(module.taken)
        # Type checkers know this one by its name.
        self._used = {"TYPE_CHECKING": "TYPE_CHECKING"}
        self._aliases = self._alias_modules()
        self._types: dict[MessageRef, str] = {}
        for name in ("grpc", "ABC", "abstractmethod"):
            self._name(name)

    def render(self) -> str:
        """Return the whole text of the module."""
        services = [
            part
            for service in self._module.services
            for part in (
                self._stub(service, asynchronous=False),
                self._stub(service, asynchronous=True),
                self._servicer(service, asynchronous=False),
                self._servicer(service, asynchronous=True),
                self._adder(service),
            )
        ]
        constants = [self._constants(service) for service in self._module.services]
        return "\n\n".join([self._header(), "\n".join(constants), *services])

    # Names and types

    def _name(self, name: str) -> str:
        """Return the name that the module has for `name`, which it imports or defines."""
        if name not in self._used:
            self._used[name] = self._names.pick(name, f"_{name}")
        return self._used[name]

    def _alias_modules(self) -> dict[str, str]:
        aliases = {}
        for proto in dict.fromkeys(ref.proto for ref in self._module.messages()):
            parts = self._layout.module(proto).split(".")
            wishes = ["_".join(parts[start:]) for start in reversed(range(len(parts)))]
            wishes = [w for w in wishes if is_plain(w) and not is_mangled(w)] or ["messages_pb2"]
            aliases[proto] = self._names.pick(*wishes)
        return aliases

    def _runtime(self, ref: MessageRef) -> str:
        """Return an expression for the message class."""
        text = self._aliases[ref.proto]
        for name, spelled in zip(ref.path, ref.spelled, strict=True):
            if name != spelled and self._layout.has_second_names(ref.proto):
                text = f"{text}.{spelled}"
            elif is_plain(name) and name != spelled:
                # An attribute of every message, which no nested message replaces.
                text = f'getattr({text}, "DESCRIPTOR").nested_types_by_name["{name}"]'
                text += "._concrete_class"
            elif is_plain(name) and not is_mangled(name):
                text = f"{text}.{name}"
            else:
                text = f"getattr({text}, {string(name)})"
        return text

    def _function(self, ref: MessageRef, name: str) -> str:
        """Return an expression for a method of the message class."""
        cls = self._runtime(ref)
        if name in ref.nested:
            return f'getattr(super({cls}, {cls}), "{name}")'
        return f'getattr({cls}, "{name}")' if name in ref.members else f"{cls}.{name}"

    def _argument(self, name: str, ref: MessageRef, function: str, indent: int) -> str:
        """Return an argument's line, without the indentation of its surroundings."""
        line = f"{name}={self._function(ref, function)},"
        if 12 + len(line) > WIDTH and "=getattr(" in line:
            head, _, rest = line.partition("getattr(")
            inner, _, tail = rest.rpartition(")")
            line = f"{head}getattr(\n    {inner}\n){tail}"
        return shift(line, " " * indent)

    def _type(self, ref: MessageRef) -> str:
        """Return an annotation for the message class."""
        if ref not in self._types:
            self._types[ref] = self._spell_type(ref)
        return self._types[ref]

    def _spell_type(self, ref: MessageRef) -> str:
        if not self._layout.importable(self._module.proto, ref.proto):
            return self._name("Any")
        return ".".join((self._aliases[ref.proto], *ref.spelled))

    # The head

    def _header(self) -> str:
        here = self._module.proto
        optional = ("Any", "Final", "overload")
        typing = ["TYPE_CHECKING", *(name for name in optional if name in self._used)]
        plain, by_name = [], []
        for proto, alias in self._aliases.items():
            if self._layout.importable(here, proto):
                plain.append(self._layout.statement(here, proto, alias))
            else:
                call = self._layout.call(here, proto, self._name("import_module"))
                by_name.append(f"{alias} = {call}")
        standard = [self._import("typing", *typing)]
        iterators = [name for name in ("AsyncIterator", "Iterator") if name in self._used]
        if iterators:
            standard.insert(0, self._import("collections.abc", *iterators))
        if by_name:
            standard.insert(-1, self._import("importlib", "import_module"))
        # Only classes are marked at run time; methods are marked for type checkers alone.
        marked = any(service.deprecated for service in self._module.services)
        home = "warnings" if self._python >= (3, 13) else "typing_extensions"
        if marked and home == "warnings":
            standard.append(self._import(home, "deprecated"))
        third = sorted(line for line in plain if not line.startswith("from ."))
        if marked and home == "typing_extensions":
            third.append(self._import(home, "deprecated"))
        own = sorted(line for line in plain if line.startswith("from ."))
        groups = ["\n".join(group) for group in (standard, third, own, by_name) if group]
        checked = [self._import("abc", "ABC", "abstractmethod")]
        if "property" in self._used:
            checked.append(self._import("builtins", "property"))
        callables = [arity.multicallable for arity in Arity if arity.multicallable in self._used]
        if "deprecated" in self._used and not marked and home == "warnings":
            checked.append(self._import(home, "deprecated"))
        checked += ["", f"import grpc{self._as('grpc')}"]
        if callables:
            line = self._import("grpc", *callables)
            if 4 + len(line) > WIDTH:
                items = line.removeprefix("from grpc import ").split(", ")
                line = fit("from grpc import (", items, ")", indent=WIDTH)
            checked.append(line)
        if "deprecated" in self._used and not marked and home == "typing_extensions":
            checked.append(self._import(home, "deprecated"))
        return fill(
            HEADER,
            proto=here,
            mypy=mypy_head(
                untyped=self._layout.untyped(self._aliases),
                deprecated="deprecated" in self._used
                or any(ref.deprecated for ref in self._module.messages()),
            ),
            services=", ".join(service.full_name for service in self._module.services),
            imports="\n\n".join(groups),
            typing_imports="\n".join(checked),
            runtime=self._runtime_names(callables),
        )

    def _runtime_names(self, callables: list[str]) -> str:
        """Return run-time definitions of names that type checkers get from elsewhere."""
        grpc = self._name("grpc")
        types = "GenericAlias, ModuleType" if callables else "ModuleType"
        later = fill(LATER, grpc=grpc, types=types)
        classes = (fill(GENERIC, name=self._name(name), grpc=grpc, base=name) for name in callables)
        generics = fill(GENERICS, classes="\n".join(classes))
        rest = fill(RUNTIME, ABC=self._name("ABC"), abstractmethod=self._name("abstractmethod"))
        return "\n".join([later, *([generics] if callables else []), rest])

    def _as(self, name: str) -> str:
        return "" if self._name(name) == name else f" as {self._name(name)}"

    def _import(self, module: str, *names: str) -> str:
        return f"from {module} import " + ", ".join(name + self._as(name) for name in names)

    # The parts of a service

    def _constants(self, service: Service) -> str:
        pairs = [(service.constant, service.full_name)]
        pairs += [(method.constant, method.full_name) for method in service.methods]
        lines = []
        for name, value in pairs:
            line = f"{name}: {self._name('Final')} = {string(value)}"
            if len(line) > WIDTH >= 4 + len(string(value)):
                line = f"{name}: {self._name('Final')} = (\n    {string(value)}\n)"
            lines.append(line + "\n")
        return "".join(lines)

    def _decorator(self, service: Service) -> str:
        if not service.deprecated:
            return ""
        return f'@{self._name("deprecated")}("{service.full_name} is deprecated.")'

    def _stub(self, service: Service, *, asynchronous: bool) -> str:
        grpc = self._name("grpc")
        hidden = any(method.attribute == "property" for method in service.methods)
        attributes, assignments = [], []
        for method in service.methods:
            generic = method.arity.multicallable
            generic = f"{grpc}.aio.{generic}" if asynchronous else self._name(generic)
            attributes.append(self._attribute(method, generic, hidden=hidden))
            target = f"self.{method.attribute}"
            if method.deprecated:
                # A property for type checkers, which has no setter.
                target = f"vars(self)[{string(method.attribute)}]"
            head = f"{target} = channel.{method.arity.value}("
            assignments += [
                head,
                f"    {method.constant},",
                self._argument("request_serializer", method.request, "SerializeToString", 4),
                self._argument("response_deserializer", method.response, "FromString", 4),
                ")",
            ]
        return fill(
            STUB,
            decorator=self._decorator(service),
            stub=service.async_stub if asynchronous else service.stub,
            doc=docstring(service.comment, f"Calls {service.full_name}."),
            attributes=("\n\n" if any("\n" in text for text in attributes) else "\n").join(
                attributes
            ),
            grpc=grpc,
            Channel="aio.Channel" if asynchronous else "Channel",
            assignments="\n".join(assignments) or '"""There is nothing to call."""',
        )

    def _attribute(self, method: Method, generic: str, *, hidden: bool) -> str:
        """Return the declaration of a callable; `hidden` if the class has its own `property`."""
        types = [self._type(method.request), self._type(method.response)]
        doc = docstring(method.comment)
        if method.deprecated:
            define = f"def {method.attribute}(self) -> {generic}[{', '.join(types)}]:"
            if len(define) + (8 if doc else 12) > WIDTH:
                define = fit(f"def {method.attribute}(\n    self,\n) -> {generic}[", types, "]:")
            define += shift(f"\n{doc}\n...", "    ") if doc else " ..."
            return fill(
                DEPRECATED_ATTRIBUTE,
                property=self._name("property") if hidden else "property",
                deprecated=self._name("deprecated"),
                name=method.name,
                define=define,
            ).rstrip("\n")
        text = fit(f"{method.attribute}: {generic}[", types, "]", indent=4)
        if 4 + len(text.partition("\n")[0]) > WIDTH:
            inner = fit(f"{generic}[", types, "]", indent=8)
            text = f"{method.attribute}: (\n{shift(inner, '    ')}\n)"
        return text + (f"\n{doc}" if doc else "")

    def _servicer(self, service: Service, *, asynchronous: bool) -> str:
        methods = [self._method(method, asynchronous=asynchronous) for method in service.methods]
        return fill(
            SERVICER,
            decorator=self._decorator(service),
            servicer=service.async_servicer if asynchronous else service.servicer,
            ABC=self._name("ABC"),
            doc=docstring(service.comment, f"Serves {service.full_name}."),
            methods="\n".join(methods),
        )

    def _method(self, method: Method, *, asynchronous: bool) -> str:
        grpc = self._name("grpc")
        request, response = self._type(method.request), self._type(method.response)
        context = f"{grpc}.ServicerContext"
        if asynchronous:
            context = fit(f"{grpc}.aio.ServicerContext[", [request, response], "]", indent=18)
        iterator = "AsyncIterator" if asynchronous else "Iterator"
        parameter = f"request: {request}"
        if method.arity.client_streaming:
            head = f"request_iterator: {self._name(iterator)}["
            parameter = wrap(head, request, "]", indent=9)
        if method.arity.server_streaming:
            response = wrap(f"{self._name(iterator)}[", response, "]", indent=10)
        abort = f'context.abort({grpc}.StatusCode.UNIMPLEMENTED, "Method not implemented!")'
        body = abort
        if asynchronous:
            body = f"await {abort}"
            if method.arity.server_streaming:
                body += "\nyield  # makes this an asynchronous generator"
        return fill(
            METHOD,
            abstractmethod=self._name("abstractmethod"),
            define="async def" if asynchronous else "def",
            attribute=method.attribute,
            parameter=parameter.replace("\n", "\n    "),
            context=context.replace("\n", "\n    "),
            result=response,
            doc=docstring(method.comment),
            body=body,
        )

    def _adder(self, service: Service) -> str:
        grpc = self._name("grpc")
        either = f"{service.servicer} | {service.async_servicer}"

        def signature(servicer: str, server: str, end: str) -> str:
            if len(f"    servicer: {servicer},") > WIDTH:
                servicer = servicer.replace(" | ", "\n    | ")
            parameters = [f"servicer: {servicer}", f"server: {server}"]
            return fit(f"def {service.adder}(", parameters, f") -> None:{end}")

        definition = fill(
            ADDER,
            signature=signature(either, f"{grpc}.Server | {grpc}.aio.Server", ""),
            doc=f'"""Makes `server` answer for {service.full_name} with `servicer`."""',
            Any=self._name("Any"),
            handlers=self._handlers(service),
            generic=fit(
                f"generic = {grpc}.method_handlers_generic_handler(",
                [service.constant, "handlers"],
                ")",
                indent=4,
            ),
            register=fit("register(", [service.constant, "handlers"], ")", indent=8),
        )
        overloads = [
            fill(OVERLOAD, overload=self._name("overload"), signature=signature(*types, " ..."))
            for types in ((service.servicer, f"{grpc}.Server"), (either, f"{grpc}.aio.Server"))
        ]
        return "\n\n".join([*overloads, definition])

    def _handlers(self, service: Service) -> str:
        grpc, any_ = self._name("grpc"), self._name("Any")
        head = f"handlers: dict[str, {grpc}.RpcMethodHandler[{any_}, {any_}]] = {{"
        if not service.methods:
            return head + "}"
        lines = [head]
        for method in service.methods:
            lines += [
                f"    {string(method.name)}: {grpc}.{method.arity.value}_rpc_method_handler(",
                f"        behavior.{method.attribute},",
                self._argument("request_deserializer", method.request, "FromString", 8),
                self._argument("response_serializer", method.response, "SerializeToString", 8),
                "    ),",
            ]
        return "\n".join([*lines, "}"])

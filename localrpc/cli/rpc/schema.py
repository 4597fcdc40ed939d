"""Services, methods and messages by name, from any source of descriptors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    FieldDescriptor,
    MethodDescriptor,
    ServiceDescriptor,
)
from google.protobuf.descriptor_pool import DescriptorPool

from localrpc.cli._near import did_you_mean, near_to
from localrpc.cli.rpc.errors import Misuse

Symbol = ServiceDescriptor | MethodDescriptor | Descriptor | EnumDescriptor

S = TypeVar("S", bound=Symbol)

_FEW = 8


class Schema:
    """`origin` names the source in errors: a target, a file or a module."""

    def __init__(
        self, origin: str, pool: DescriptorPool, names: Callable[[], Iterable[str]]
    ) -> None:
        self.origin = origin
        self.pool = pool
        self._names = names
        self._services: list[str] | None = None

    def services(self) -> list[str]:
        """Return full names, sorted."""
        if self._services is None:
            self._services = sorted(set(self._names()))
        return self._services

    def service(self, name: str) -> ServiceDescriptor:
        """Find a service by its full name, or by the last part if that is unique. Raises Misuse."""
        found = self._find_service(name)
        if found is None:
            matches = [each for each in self.services() if each.rpartition(".")[2] == name]
            if len(matches) > 1:
                raise Misuse(f"{self.origin} has more than one {name}: {', '.join(matches)}")
            name = matches[0] if matches else name
            found = self._find_service(name) if matches else None
        if found is None and name in self.services():
            raise Misuse(f"{self.origin} lists {name}, but has no description of it")
        if found is None:
            raise Misuse(f"{self.origin} has no service {name!r}{self._hint(name)}")
        return found

    def method(self, text: str) -> MethodDescriptor:
        """Find a method by `pkg.Service/Method`, `/pkg.Service/Method` or `pkg.Service.Method`.

        Raises Misuse.
        """
        name = text.removeprefix("/")
        service_name, separator, method_name = name.rpartition("/" if "/" in name else ".")
        if not separator or not service_name or not method_name:
            raise Misuse(f"{text!r} does not name a method: write SERVICE/METHOD{self._hint(name)}")
        service = self.service(service_name)
        method = service.methods_by_name.get(method_name)
        if method is None:
            known = [each.name for each in service.methods]
            hint = (
                did_you_mean(near_to(method_name, known))
                or f"; it has {', '.join(known) or 'none'}"
            )
            raise Misuse(f"service {service.full_name} has no method {method_name!r}{hint}")
        return method

    def symbol(self, text: str) -> Symbol:
        """Find a service, method, message or enum by its full name. Raises Misuse."""
        name = text.removeprefix("/").removeprefix(".")
        if "/" in name:
            return self.method(name)
        finders: tuple[Callable[[str], Symbol], ...] = (
            self.pool.FindServiceByName,
            self.pool.FindMessageTypeByName,
            self.pool.FindEnumTypeByName,
        )
        for find in finders:
            if (found := self._find(find, name)) is not None:
                return found
        parent, _, last = name.rpartition(".")
        service = self._find_service(parent) if parent else None
        if service is not None and last in service.methods_by_name:
            return service.methods_by_name[last]
        known = list(self._symbols())
        matches = [each for each in known if each.rpartition(".")[2] == name]
        if len(matches) == 1:
            return self.symbol(matches[0])
        raise Misuse(f"{self.origin} has nothing named {text!r}{self._hint(name, known)}")

    def _find_service(self, name: str) -> ServiceDescriptor | None:
        return self._find(self.pool.FindServiceByName, name)

    def _find(self, find: Callable[[str], S], name: str) -> S | None:
        try:
            return find(name)
        except KeyError:
            return None
        except TypeError as error:  # an import is missing, or differs from the known file
            raise Misuse(f"{self.origin} describes {name} wrongly: {error}") from error

    def _symbols(self) -> Iterator[str]:
        for name in self.services():
            service = self._find_service(name)
            if service is not None:
                yield service.full_name
                yield from (method.full_name for method in service.methods)
                yield from (each.full_name for each in types_of(service))

    def _hint(self, name: str, known: list[str] | None = None) -> str:
        services = self.services()
        known = services if known is None else known
        # Compare without packages first: names in one package resemble each other.
        short = {each.rpartition(".")[2]: each for each in known}
        near = [short[each] for each in near_to(name.rpartition(".")[2], short)]
        if hint := did_you_mean(near or near_to(name, known)):
            return hint
        some = ", ".join(services[:_FEW]) + (", ..." if len(services) > _FEW else "")
        return f"; it has {some or 'no services'}"


def types_of(*roots: Symbol) -> list[Descriptor | EnumDescriptor]:
    """Return messages and enums that `roots` use, in order, without those of google.protobuf.

    A type that is defined inside a message counts as a part of it.
    """
    found: dict[str, Descriptor | EnumDescriptor] = {}
    waiting: list[Descriptor | EnumDescriptor] = []
    for root in roots:
        if isinstance(root, (ServiceDescriptor, MethodDescriptor)):
            methods = root.methods if isinstance(root, ServiceDescriptor) else [root]
            waiting += [each for m in methods for each in (m.input_type, m.output_type)]
        else:
            waiting.append(root)
    while waiting:
        each = waiting.pop(0)
        while each.containing_type is not None:
            each = each.containing_type
        if each.full_name in found or each.file.package == "google.protobuf":
            continue
        found[each.full_name] = each
        if isinstance(each, Descriptor):
            waiting += _used_by(each)
    return list(found.values())


def _used_by(message: Descriptor) -> Iterator[Descriptor | EnumDescriptor]:
    for field in message.fields:
        used = type_of(field)
        if used is not None:
            yield used
    for nested in message.nested_types:
        yield from _used_by(nested)


def type_of(field: FieldDescriptor) -> Descriptor | EnumDescriptor | None:
    """Return the message or enum type of a field."""
    return field.message_type or field.enum_type

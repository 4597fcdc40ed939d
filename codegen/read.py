"""Reads descriptors into the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FileDescriptorProto,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

from .model import Arity, MessageRef, Method, Module, Service
from .names import LOCALS, Names, attribute_name, constant_name
from .spelling import MESSAGE_ATTRIBUTES, member_names, type_paths

SERVICE_FIELD = FileDescriptorProto.SERVICE_FIELD_NUMBER
METHOD_FIELD = ServiceDescriptorProto.METHOD_FIELD_NUMBER


def index_messages(files: Iterable[FileDescriptorProto]) -> dict[str, MessageRef]:
    """Return every message by its full name with the leading dot, as in descriptors."""

    def walk(
        file: FileDescriptorProto,
        spelled: Mapping[tuple[str, ...], tuple[str, ...]],
        messages: Iterable[DescriptorProto],
        outer: tuple[str, ...],
    ) -> Iterator[MessageRef]:
        for message in messages:
            path = (*outer, message.name)
            yield MessageRef(
                proto=file.name,
                path=path,
                spelled=spelled[path],
                members=MESSAGE_ATTRIBUTES.intersection(member_names(message)),
                nested=MESSAGE_ATTRIBUTES.intersection(each.name for each in message.nested_type),
                deprecated=file.options.deprecated or message.options.deprecated,
            )
            yield from walk(file, spelled, message.nested_type, path)

    return {
        ".".join(("", *filter(None, [file.package]), *ref.path)): ref
        for file in files
        for ref in walk(file, type_paths(file), file.message_type, ())
    }


def read_comments(file: FileDescriptorProto) -> dict[tuple[int, ...], str]:
    """Return the comments before and after definitions, by their paths in the descriptor."""
    # Most locations have no comment; do not compute paths for them.
    return {
        tuple(location.path): "\n".join(parts)
        for location in file.source_code_info.location
        if (parts := [*filter(None, (location.leading_comments, location.trailing_comments))])
    }


def read_module(file: FileDescriptorProto, messages: dict[str, MessageRef]) -> Module:
    """Return the model of one file; `messages` is index_messages() of all files it uses."""
    comments = read_comments(file)
    names = Names(LOCALS)
    # Names that grpcio's generator uses, too, come first: they must be the expected ones.
    sync_names = [
        (
            names.pick(f"{service.name}Stub"),
            names.pick(f"{service.name}Servicer"),
            names.pick(f"add_{service.name}Servicer_to_server"),
        )
        for service in file.service
    ]
    async_names = [
        (names.pick(f"{service.name}AsyncStub"), names.pick(f"{service.name}AsyncServicer"))
        for service in file.service
    ]
    constants = [names.pick(constant_name(service.name, "SERVICE")) for service in file.service]
    taken: set[str] = set()
    services = []
    for index, descriptor in enumerate(file.service):
        full_name = f"{file.package}.{descriptor.name}" if file.package else descriptor.name
        deprecated = file.options.deprecated or descriptor.options.deprecated
        attributes = _attributes(descriptor.method)
        stub, servicer, adder = sync_names[index]
        async_stub, async_servicer = async_names[index]
        methods = tuple(
            Method(
                name=method.name,
                attribute=attributes[method.name],
                constant=names.pick(constant_name(descriptor.name, method.name)),
                full_name=f"/{full_name}/{method.name}",
                arity=Arity.of(
                    client_streaming=method.client_streaming,
                    server_streaming=method.server_streaming,
                ),
                request=messages[method.input_type],
                response=messages[method.output_type],
                comment=comments.get((SERVICE_FIELD, index, METHOD_FIELD, number), ""),
                deprecated=method.options.deprecated,
            )
            for number, method in enumerate(descriptor.method)
        )
        services.append(
            Service(
                name=descriptor.name,
                full_name=full_name,
                constant=constants[index],
                stub=stub,
                async_stub=async_stub,
                servicer=servicer,
                async_servicer=async_servicer,
                adder=adder,
                comment=comments.get((SERVICE_FIELD, index), ""),
                deprecated=deprecated,
                methods=methods,
            )
        )
        taken.update(attributes.values(), (method.constant for method in methods))
    taken.update(LOCALS, constants, *sync_names, *async_names)
    return Module(file.name, file.package, tuple(services), frozenset(taken))


def _attributes(methods: Iterable[MethodDescriptorProto]) -> dict[str, str]:
    spell = {method.name: attribute_name(method.name) for method in methods}
    return Names().pick_all(spell, spell)

"""Descriptors from .proto files or generated modules."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

import click
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from localrpc.cli.rpc.errors import Misuse
from localrpc.cli.rpc.schema import Schema

NEEDS_TOOLS = "--proto needs grpcio-tools: pip install 'localrpc[codegen]'"


def from_protos(protos: Sequence[Path], folders: Sequence[Path]) -> Schema:
    """Compile .proto files, or all below `folders` if none is named. Raises Misuse."""
    from localrpc_codegen.driver import GenerateError, compile_protos

    if importlib.util.find_spec("grpc_tools") is None:
        raise click.ClickException(NEEDS_TOOLS)
    for folder in folders:
        if not folder.is_dir():
            raise Misuse(f"--proto-dir: there is no folder {folder}")
    for proto in protos:
        if not any((folder / proto).is_file() for folder in (Path(), *folders)):
            below = f", nor below {', '.join(map(str, folders))}" if folders else ""
            raise Misuse(f"--proto: there is no file {proto}{below}")
    try:
        files = compile_protos(protos or folders, folders)
    except GenerateError as error:
        raise Misuse(str(error)) from error
    pool = DescriptorPool()
    for file in files:
        pool.AddSerializedFile(file.SerializeToString())
    names = _services_of(files)
    return Schema(", ".join(map(str, protos or folders)), pool, lambda: names)


def _services_of(files: Iterable[FileDescriptorProto]) -> list[str]:
    return [
        f"{file.package}.{service.name}".lstrip(".") for file in files for service in file.service
    ]


def from_modules(names: Sequence[str]) -> Schema:
    """Import modules of generated messages, or others that import some. Raises Misuse."""
    # As for `python -m`: an installed command has its own folder at this place.
    sys.path.insert(0, os.getcwd())
    files: dict[str, FileDescriptor] = {}
    for name in names:
        try:
            module = importlib.import_module(name)
        except Exception as error:
            raise Misuse(f"cannot import {name}: {type(error).__name__}: {error}") from error
        held = [each for each in vars(module).values() if isinstance(each, ModuleType)]
        own = [_descriptor_of(module)] if _descriptor_of(module) else map(_descriptor_of, held)
        found = {file.name: file for file in own if file is not None}
        if not found:
            raise Misuse(f"{name} is not a module of generated messages, and imports none")
        files |= found
    services = [
        service.full_name for file in files.values() for service in file.services_by_name.values()
    ]
    return Schema(", ".join(names), descriptor_pool.Default(), lambda: services)


def _descriptor_of(module: ModuleType) -> FileDescriptor | None:
    found = getattr(module, "DESCRIPTOR", None)
    return found if isinstance(found, FileDescriptor) else None


def read(protos: Sequence[Path], folders: Sequence[Path], modules: Sequence[str]) -> Schema:
    """Return the schema of the given files or modules, which cannot be mixed. Raises Misuse."""
    if modules and (protos or folders):
        raise Misuse("--module cannot be combined with --proto and --proto-dir")
    return from_modules(modules) if modules else from_protos(protos, folders)

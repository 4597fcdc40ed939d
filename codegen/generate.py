"""Generates files from descriptors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from .layout import Imports, Layout, installed_module
from .read import index_messages, read_module
from .render import Renderer


@dataclass(frozen=True)
class Settings:
    """The settings for the output."""

    imports: Imports = Imports.RELATIVE
    python: tuple[int, int] = (3, 10)
    """The oldest Python version that has to run the output."""


def generate(
    files: Sequence[FileDescriptorProto],
    wanted: Iterable[str],
    settings: Settings,
    layout: Layout | None = None,
) -> dict[str, str]:
    """Return the `_localrpc.py` modules of those `wanted` files that have services, by file name.

    `files` has the wanted ones and all that they import, with their source info. Without a
    `layout`, imported files that are not installed are assumed to be beside the wanted ones.
    """
    wanted = list(wanted)
    layout = layout or default_layout(files, wanted, settings.imports)
    by_name = {file.name: file for file in files}
    messages = index_messages(files)
    return {
        layout.file(name, "_localrpc"): Renderer(
            read_module(by_name[name], messages), layout, settings.python
        ).render()
        for name in wanted
        if by_name[name].service
    }


def default_layout(
    files: Iterable[FileDescriptorProto], wanted: Iterable[str], imports: Imports
) -> Layout:
    """Return the layout in which wanted files and imports that are not installed are ours."""
    ours = set(wanted)
    ours.update(file.name for file in files if not installed_module(file.name))
    return Layout(ours, imports)

"""Typed Python from protobuf descriptors: stubs and servicers for gRPC's API.

`generate` turns descriptors into source text, without touching a file; `plugin` offers it to
protoc and buf; `driver` runs protoc itself, makes its modules fit in (`messages`), writes their
type stubs (`stubs`) and brings a folder up to date.
"""

from __future__ import annotations

from .generate import Settings, generate
from .layout import Imports, Layout

__all__ = ["Imports", "Layout", "Settings", "generate"]

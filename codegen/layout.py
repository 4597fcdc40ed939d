"""The locations of generated modules, and how one imports another."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from enum import Enum
from pathlib import Path

from .names import folder_name, is_plain


class Imports(Enum):
    """How generated modules import each other."""

    RELATIVE = "relative"
    """`from . import x_pb2`: the output is a package, in any place."""
    ABSOLUTE = "absolute"
    """`import x_pb2`, as protoc writes it: the output folder is on `sys.path`."""


def protoc_module(proto: str, suffix: str = "_pb2") -> str:
    """Return the dotted name under which protoc's own Python output expects `proto`."""
    stem = proto.removesuffix(".proto")
    return stem.replace("-", "_").replace("/", ".") + suffix


def installed_module(proto: str, *, apart_from: Iterable[Path] = ()) -> bool:
    """Return True if the `_pb2` module is on `sys.path`, outside of the given folders."""
    if proto.startswith("google/protobuf/"):
        return True
    relative = protoc_module(proto).replace(".", "/") + ".py"
    ours = {folder.resolve() for folder in apart_from}
    return any(
        Path(entry, relative).is_file()
        for entry in sys.path
        if entry and Path(entry).resolve() not in ours
    )


class Layout:
    """The modules of one output folder.

    `ours` are the protos whose modules are in that folder; all others are imported under their own
    absolute names. A `tidy` layout gives each of our modules a name that an import statement can
    spell (`in/x.proto` is in `in_/`) and find (a folder `x_pb2` beside `x.proto` becomes
    `x_pb2_`); otherwise they are where protoc puts them.
    """

    def __init__(self, ours: Collection[str], imports: Imports, *, tidy: bool = False) -> None:
        self.imports = imports
        self.tidy = tidy
        self._ours = frozenset(ours)
        self._folderless = frozenset(
            ".".join(_tidy(proto, suffix)) for proto in ours for suffix in ("_pb2", "_localrpc")
        )
        self._modules: dict[tuple[str, str], str] = {}

    def module(self, proto: str, suffix: str = "_pb2") -> str:
        """Return the dotted name of a module; relative to the output folder if it is ours."""
        module = self._modules.get((proto, suffix))
        if module is None:
            module = protoc_module(proto, suffix)
            if self.tidy and proto in self._ours:
                parts = _tidy(proto, suffix)
                prefixes = (".".join(parts[:end]) for end in range(1, len(parts)))
                # Python looks for a package first, and would never find the module.
                folders = [
                    part + "_" if prefix in self._folderless else part
                    for part, prefix in zip(parts, prefixes, strict=False)
                ]
                module = ".".join([*folders, parts[-1]])
            self._modules[proto, suffix] = module
        return module

    def file(self, proto: str, suffix: str, extension: str = ".py") -> str:
        return self.module(proto, suffix).replace(".", "/") + extension

    def origin(self, importer: str, imported: str) -> tuple[str, str]:
        """Return `(package, module)` for `from package import module`; package may be empty."""
        *package, name = self.module(imported).split(".")
        if self.imports is Imports.ABSOLUTE or imported not in self._ours:
            return ".".join(package), name
        here = self.module(importer).split(".")[:-1]
        common = 0
        while common < min(len(here), len(package)) and here[common] == package[common]:
            common += 1
        dots = "." * (len(here) - common + 1)
        return dots + ".".join(package[common:]), name

    def path(self, importer: str, imported: str) -> str:
        """Return the module in one piece: `..a.x_pb2`, for `from ... import *`."""
        package, name = self.origin(importer, imported)
        return f"{package}{'' if not package or package.endswith('.') else '.'}{name}"

    def importable(self, importer: str, imported: str) -> bool:
        """Return True if an import statement can name the module."""
        return all(is_plain(part) for part in self.path(importer, imported).lstrip(".").split("."))

    def has_second_names(self, proto: str) -> bool:
        """Return True if types that Python cannot spell have other names in the module."""
        return self.tidy and proto in self._ours

    def statement(self, importer: str, imported: str, alias: str) -> str:
        """Return the import statement of a `_pb2` module under `alias`."""
        package, name = self.origin(importer, imported)
        as_alias = "" if alias == name else f" as {alias}"
        return f"from {package} import {name}{as_alias}" if package else f"import {name}{as_alias}"

    def call(self, importer: str, imported: str, function: str) -> str:
        """Return the import by `importlib.import_module`, for names that no statement can spell."""
        path = self.path(importer, imported)
        anchor = ", __package__" if path.startswith(".") else ""
        return f'{function}("{path}"{anchor})'

    def untyped(self, imported: Iterable[str]) -> bool:
        """Return True if an import comes from a package that may have no type information."""
        foreign = (name for name in imported if name not in self._ours)
        return not all(name.startswith("google/protobuf/") for name in foreign)


def _tidy(proto: str, suffix: str) -> list[str]:
    """Return the parts of a module's name, each as an import statement can spell it."""
    return [folder_name(part) for part in protoc_module(proto, suffix).split(".")]


def mypy_head(*, untyped: bool, deprecated: bool, overrides: bool = False) -> str:
    """Return the comment that tells mypy not to report what the user cannot fix."""
    reasons = {
        "import-untyped": untyped,
        "deprecated": deprecated,
        # A field called `Clear` is not the method of that name that every message has.
        "assignment": overrides,
        "misc": overrides,
        "no-redef": overrides,
        "override": overrides,
    }
    codes = [code for code, on in reasons.items() if on]
    return f'# mypy: disable-error-code="{", ".join(codes)}"\n' if codes else ""

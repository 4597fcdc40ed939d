"""Python names for protobuf names, and a register that keeps them distinct."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Iterable

# The parameters, locals and builtins of generated functions. They would hide a module-level name
# of the same spelling.
LOCALS = frozenset(
    {"self", "request", "request_iterator", "context", "channel"}
    | {"servicer", "server", "behavior", "handlers", "generic", "register"}
    | {"method", "getattr", "vars", "object", "dict", "str", "property"}
)


def attribute_name(name: str) -> str:
    """Return the attribute for a protobuf method: the same name if Python can spell it.

    A keyword gets a trailing underscore. Of two leading underscores one is removed, because
    Python mangles such a name inside a class, or gives it a meaning of its own (`__init__`).
    """
    if name.startswith("__"):
        name = "_" + name.lstrip("_")
    return name + "_" if keyword.iskeyword(name) else name


def upper_name(name: str) -> str:
    """Return `GetHTTPPage` in the style of constants: `GET_HTTP_PAGE`."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return name.upper()


def constant_name(service: str, rest: str) -> str:
    """Return a module-level constant that Python does not mangle inside classes."""
    name = f"{upper_name(service)}_{upper_name(rest)}"
    return "_" + name.lstrip("_") if name.startswith("__") else name


def folder_name(part: str) -> str:
    """Return one part of a proto's path as an importable name: `in` as `in_`, `2023` as `_2023`."""
    # Python reads names in this normal form, so the folder must have it, too.
    part = unicodedata.normalize("NFKC", part)
    part = "".join(char if ("_" + char).isidentifier() else "_" for char in part)
    if not part.isidentifier():
        part = "_" + part
    return part + "_" if keyword.iskeyword(part) else part


def is_plain(name: str) -> bool:
    """Return True if `name` and `x.name` are valid Python, even as targets of an assignment."""
    return name.isidentifier() and not keyword.iskeyword(name) and name != "__debug__"


def is_mangled(name: str) -> bool:
    """Return True if Python mangles the name inside a class."""
    return name.startswith("__") and not name.endswith("__")


class Names:
    """Names taken in one scope; `pick` never returns the same one twice."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)

    def __contains__(self, name: str) -> bool:
        return name in self._taken

    def add(self, *names: str) -> None:
        """Take names unchanged."""
        self._taken.update(names)

    def pick(self, *wishes: str) -> str:
        """Return the first free of `wishes`, or the last with as many underscores as needed."""
        for wish in wishes:
            if wish not in self._taken:
                break
        else:
            while wish in self._taken:
                wish += "_"
        self._taken.add(wish)
        return wish

    def pick_all(self, wanted: Iterable[str], spell: dict[str, str]) -> dict[str, str]:
        """Return names for `wanted`; those whose spelling is unchanged take precedence."""
        ordered = sorted(wanted, key=lambda name: spell[name] != name)
        return {name: self.pick(spell[name]) for name in ordered}

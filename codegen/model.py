"""The contents of a generated module, apart from its text."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Arity(Enum):
    """The four kinds of RPC, spelled as in gRPC's function and class names."""

    UNARY_UNARY = "unary_unary"
    UNARY_STREAM = "unary_stream"
    STREAM_UNARY = "stream_unary"
    STREAM_STREAM = "stream_stream"

    @classmethod
    def of(cls, *, client_streaming: bool, server_streaming: bool) -> Arity:
        client = "stream" if client_streaming else "unary"
        server = "stream" if server_streaming else "unary"
        return cls(f"{client}_{server}")

    @property
    def client_streaming(self) -> bool:
        return self in (Arity.STREAM_UNARY, Arity.STREAM_STREAM)

    @property
    def server_streaming(self) -> bool:
        return self in (Arity.UNARY_STREAM, Arity.STREAM_STREAM)

    @property
    def multicallable(self) -> str:
        """`UnaryUnaryMultiCallable`, and so on."""
        return self.value.title().replace("_", "") + "MultiCallable"


@dataclass(frozen=True)
class MessageRef:
    """A message class: where it is defined, and the names that lead to it."""

    proto: str
    path: tuple[str, ...]
    spelled: tuple[str, ...]
    """The names in its stub, which differ where Python cannot spell or reach the proto's."""
    members: frozenset[str] = frozenset()
    """Names of fields and other members that are also names of a method of every message."""
    nested: frozenset[str] = frozenset()
    """Those that are nested messages, which replace the methods."""
    deprecated: bool = False


@dataclass(frozen=True)
class Method:
    name: str
    attribute: str
    constant: str
    full_name: str
    arity: Arity
    request: MessageRef
    response: MessageRef
    comment: str
    deprecated: bool


@dataclass(frozen=True)
class Service:
    name: str
    full_name: str
    constant: str
    stub: str
    async_stub: str
    servicer: str
    async_servicer: str
    adder: str
    comment: str
    deprecated: bool
    methods: tuple[Method, ...]


@dataclass(frozen=True)
class Module:
    """One proto's services, with module-level names that do not clash."""

    proto: str
    package: str
    services: tuple[Service, ...]
    # Every name in a class body or a module-level definition: imports avoid them.
    taken: frozenset[str]

    def messages(self) -> list[MessageRef]:
        """Return the message classes that the services use, each once, in order."""
        every = (
            ref
            for service in self.services
            for method in service.methods
            for ref in (method.request, method.response)
        )
        return list(dict.fromkeys(every))

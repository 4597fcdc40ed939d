"""The list of schemes. The module of one is imported when a target first has it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType

from localrpc.address import Address
from localrpc.errors import AddressError
from localrpc.transports.base import Transport
from localrpc.transports.scheme import Offer, Scheme

REGISTERED: Mapping[str, str] = MappingProxyType(
    {
        "shm": "shm.ShmTransport",
        "unix": "unix.UnixTransport",
        "unix-abstract": "unix.AbstractTransport",
        "pipe": "pipe.PipeTransport",
        "mq": "mq.MqTransport",
        "sysvmq": "sysvmq.SysvMqTransport",
        "file": "file.FileTransport",
        "tcp": "tcp.TcpTransport",
        "inproc": "inproc.InprocTransport",
        "fd": "fd.FdTransport",
        "grpc": "remote.GrpcScheme",
    }
)
"""For each scheme the module in this package and the class that describe it."""

_loaded: dict[str, Scheme] = {}


def scheme_for(name: str) -> Scheme:
    """Raises KeyError for a scheme that does not exist."""
    if name not in _loaded:
        module, _, kind = REGISTERED[name].partition(".")
        described: Scheme = getattr(import_module(f"{__package__}.{module}"), kind)()
        _loaded.setdefault(name, described)
    return _loaded[name]


def schemes() -> dict[str, Scheme]:
    """Return every scheme by its name; imports them all."""
    return {name: scheme_for(name) for name in REGISTERED}


def transports() -> dict[str, Transport]:
    """Return those that localrpc carries itself."""
    return {name: scheme for name, scheme in schemes().items() if isinstance(scheme, Transport)}


def transport_for(name: str) -> Transport:
    """Raises AddressError for a scheme without a transport."""
    scheme = scheme_for(name) if name in REGISTERED else None
    if isinstance(scheme, Transport):
        return scheme
    known = ", ".join(f"{known}:" for known in transports())
    raise AddressError(f"unknown scheme {name!r}; localrpc knows {known}")


def offers() -> tuple[Offer, ...]:
    """See localrpc.transports."""
    return tuple(offer for scheme in schemes().values() for offer in scheme.offers())


def parse_target(text: str) -> Address:
    """Raises AddressError, whose text names the target, what is wrong and the fix."""
    if not isinstance(text, str):
        raise TypeError(f"a target is a str, not {type(text).__name__}")
    name, colon, rest = text.partition(":")
    if colon and name in REGISTERED:
        return scheme_for(name).parse(text, rest)
    known = ", ".join(scheme.example for scheme in schemes().values())
    if not colon:
        raise AddressError(f"target {text!r} has no scheme; write one of {known}")
    hint = ""
    if re.fullmatch(r"[0-9]+", rest):
        hint = f" (write tcp:{text}, or grpc:{text} for gRPC over the network)"
    raise AddressError(f"target {text!r}: unknown scheme {name!r}; localrpc knows {known}{hint}")

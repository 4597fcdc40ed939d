"""The doors: one file per transport, found by a target's scheme.

The package can be called: then it is localrpc.transports().
"""

from __future__ import annotations

import sys
from types import ModuleType

from localrpc.errors import AddressError
from localrpc.transports.attempt import Attempt
from localrpc.transports.base import (
    Connection,
    ConnectionFacts,
    Greeting,
    Listener,
    Offer,
    PeerCredentials,
    Scope,
    Transport,
)
from localrpc.transports.fd import FdTransport
from localrpc.transports.file import FileTransport
from localrpc.transports.inproc import InprocTransport
from localrpc.transports.mq import MqTransport
from localrpc.transports.pipe import PipeTransport
from localrpc.transports.shm import ShmTransport
from localrpc.transports.sysvmq import SysvMqTransport
from localrpc.transports.tcp import TcpTransport
from localrpc.transports.unix import AbstractTransport, UnixTransport

__all__ = [
    "Attempt",
    "Connection",
    "ConnectionFacts",
    "Greeting",
    "Listener",
    "Offer",
    "PeerCredentials",
    "Scope",
    "Transport",
    "offers",
    "transport_for",
    "transports",
]

_TRANSPORTS: dict[str, Transport] = {
    transport.scheme: transport
    for transport in (
        ShmTransport(),
        UnixTransport(),
        AbstractTransport(),
        PipeTransport(),
        MqTransport(),
        SysvMqTransport(),
        FileTransport(),
        TcpTransport(),
        InprocTransport(),
        FdTransport(),
    )
}


def transports() -> dict[str, Transport]:
    """Every transport by its scheme; a copy."""
    return dict(_TRANSPORTS)


def transport_for(scheme: str) -> Transport:
    """Raises AddressError for a scheme without a transport."""
    try:
        return _TRANSPORTS[scheme]
    except KeyError:
        known = ", ".join(f"{known}:" for known in _TRANSPORTS)
        raise AddressError(f"unknown scheme {scheme!r}; localrpc knows {known}") from None


def _remote() -> Offer:
    """What grpcio carries, on a floor above."""
    return Offer(
        target="grpc:TARGET",
        scope=Scope.NETWORK,
        direction="full duplex",
        technique="HTTP/2, carried by grpcio itself",
        credentials="what grpc's credentials say, such as TLS",
        zero_copy=False,
        limits={},
    )


def offers() -> tuple[Offer, ...]:
    """See localrpc.transports."""
    ours = [offer for transport in _TRANSPORTS.values() for offer in transport.offers()]
    return (*ours, _remote())


class _Package(ModuleType):
    """Importing this package hides the function of the same name in localrpc."""

    def __call__(self) -> tuple[Offer, ...]:
        return offers()


sys.modules[__name__].__class__ = _Package

"""The doors: one file per transport, found by a target's scheme."""

from __future__ import annotations

from localrpc.errors import AddressError
from localrpc.transports.base import (
    Connection,
    ConnectionFacts,
    Greeting,
    Listener,
    PeerCredentials,
    Transport,
)
from localrpc.transports.file import FileTransport
from localrpc.transports.mq import MqTransport
from localrpc.transports.pipe import PipeTransport
from localrpc.transports.shm import ShmTransport
from localrpc.transports.sysvmq import SysvMqTransport
from localrpc.transports.tcp import TcpTransport
from localrpc.transports.unix import AbstractTransport, UnixTransport

__all__ = [
    "Connection",
    "ConnectionFacts",
    "Greeting",
    "Listener",
    "PeerCredentials",
    "Transport",
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

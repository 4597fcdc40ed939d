"""One module per transport, found by a target's scheme: registry.py lists them.

The package can be called: then it is localrpc.transports().
"""

from __future__ import annotations

import sys
from types import ModuleType

from localrpc.transports.attempt import Attempt
from localrpc.transports.base import (
    Admission,
    Connection,
    ConnectionFacts,
    Dialer,
    Greeting,
    Listener,
    PeerCredentials,
    Transport,
)
from localrpc.transports.registry import (
    REGISTERED,
    offers,
    parse_target,
    scheme_for,
    schemes,
    transport_for,
    transports,
)
from localrpc.transports.scheme import Offer, Scheme, Scope

__all__ = [
    "REGISTERED",
    "Admission",
    "Attempt",
    "Connection",
    "ConnectionFacts",
    "Dialer",
    "Greeting",
    "Listener",
    "Offer",
    "PeerCredentials",
    "Scheme",
    "Scope",
    "Transport",
    "offers",
    "parse_target",
    "scheme_for",
    "schemes",
    "transport_for",
    "transports",
]


class _Package(ModuleType):
    """Importing this package hides the function of the same name in localrpc."""

    def __call__(self) -> tuple[Offer, ...]:
        return offers()


sys.modules[__name__].__class__ = _Package

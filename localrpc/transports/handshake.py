"""What both halves of a handshake share. See handshake_client.py and handshake_server.py.

Each side sends one HELLO. A side checks the other's credentials before it believes a word of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from localrpc import _log
from localrpc._core.links import Link
from localrpc.address import Address
from localrpc.options import Options
from localrpc.transports.base import ConnectionFacts, PeerCredentials
from localrpc.transports.media import Medium
from localrpc.wire import frames
from localrpc.wire.codec import Hello

M = TypeVar("M", bound=Medium)

Watch = Callable[[M, PeerCredentials, Hello], tuple[PeerCredentials, int]]
"""What is known of the peer after its HELLO, and a pidfd or -1. Raises GreetingError."""

_logger = _log.logger("transports")
_warned: set[str] = set()


class MemoryRefused(Exception):
    """Memory is not available; the connection stays on its socket."""


def make_hello(options: Options, **fields: Any) -> Hello:
    return Hello(
        version_min=frames.VERSION_MIN,
        version_max=frames.VERSION_MAX,
        window=options.window,
        agent=options.user_agent,
        pid=os.getpid(),
        **fields,
    )


def reachable_by_signal(peer: PeerCredentials, hello: Hello) -> PeerCredentials:
    """`peer` with a pid of 0 if it counts threads otherwise: in another PID namespace,
    where its number of a thread could be that of another one here; or it was forked
    after another process had listened."""
    return peer if hello.pid == peer.pid else peer._replace(pid=0)


def warn_fell_back(address: Address, reason: str) -> None:
    """Warn once per target; every connection's facts say it anyway."""
    target = str(address)
    if target not in _warned:
        _warned.add(target)
        _logger.warning("%s: no shared memory (%s); calls travel on the socket", target, reason)


def stream_link(
    medium: Medium, pidfd: int, address: Address, refusal: str
) -> tuple[Link, ConnectionFacts]:
    """Return a link whose frames travel on the medium; it takes over medium and pidfd."""
    if refusal:
        warn_fell_back(address, refusal)
    facts = ConnectionFacts(address.scheme, medium.kind, refusal or None)
    return medium.open_link(pidfd, address), facts

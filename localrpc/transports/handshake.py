"""What both halves of a handshake share. See handshake_client.py and handshake_server.py.

Each side sends one HELLO. A side checks the other's credentials before it trusts anything in its
HELLO.
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
from localrpc.transports.byte_channels import ByteChannel
from localrpc.wire import frames
from localrpc.wire.codec import Hello

C = TypeVar("C", bound=ByteChannel)

Watch = Callable[[C, PeerCredentials, Hello], tuple[PeerCredentials, int]]
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
        group=options.worker.group,
        worker=options.worker.number,
        **fields,
    )


def reachable_by_signal(peer: PeerCredentials, hello: Hello) -> PeerCredentials:
    """Return `peer`, with a pid of 0 if its HELLO has another pid: then it is in another PID
    namespace, whose thread ids mean other threads here, or it was forked by the process that called
    listen()."""
    return peer if hello.pid == peer.pid else peer._replace(pid=0)


def warn_fell_back(address: Address, reason: str) -> None:
    """Warn once per target; every connection's facts say it anyway."""
    target = str(address)
    if target not in _warned:
        _warned.add(target)
        _logger.warning("%s: no shared memory (%s); calls travel on the socket", target, reason)


def stream_link(
    channel: ByteChannel, pidfd: int, address: Address, refusal: str
) -> tuple[Link, ConnectionFacts]:
    """Return a link whose frames travel on the channel; it takes over channel and pidfd."""
    if refusal:
        warn_fell_back(address, refusal)
    facts = ConnectionFacts(address.scheme, channel.kind, refusal or None)
    return channel.open_link(pidfd, address), facts

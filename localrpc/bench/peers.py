"""The peers that can be measured, by name."""

from __future__ import annotations

from pathlib import Path

from localrpc.transports import parse_target, schemes

from .aio import GrpcioAioPeer, LocalrpcAioPeer
from .bare import BARE
from .exchange import MultiprocessingPeer
from .floors import FLOORS
from .foreign import CapnpPeer, Iceoryx2Peer, NngPeer, RpycPeer, ZmqPeer
from .loops import PLAIN, SPINNING, UVLOOP
from .peer import Peer
from .rings import RingPeer
from .rpc import GrpcioPeer, LocalrpcPeer
from .streams import StreamsPeer

_OURS = [name for name, scheme in schemes().items() if scheme.connects_processes and name != "grpc"]
"""Transports between processes; grpc: would measure grpcio again."""

_OTHERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        GrpcioPeer(),
        GrpcioPeer("tcp"),
        GrpcioAioPeer(),
        GrpcioAioPeer("tcp"),
        GrpcioAioPeer(kind=UVLOOP),
        *(LocalrpcAioPeer(name) for name in _OURS),
        *(LocalrpcAioPeer(name, kind) for name in ("shm", "unix") for kind in (UVLOOP, SPINNING)),
        *(StreamsPeer(kind) for kind in (PLAIN, UVLOOP)),
        *BARE,
        RingPeer(),
        MultiprocessingPeer(),
        ZmqPeer(),
        NngPeer(),
        RpycPeer(),
        CapnpPeer(),
        Iceoryx2Peer(),
        *FLOORS,
    )
}
# An abstract name differs from a path in nothing but the name.
_DEFAULT = [name for name in _OURS if name != "unix-abstract"]
_DEFAULT += ["grpcio", "socket", "multiprocessing"]


def known_peers() -> list[str]:
    """Return the names for find_peer(), localrpc's first; options may follow those."""
    return [*_OURS, *_OTHERS]


def default_peers() -> list[str]:
    """Return every transport once, grpcio, and what Python has of its own."""
    return list(_DEFAULT)


def find_peer(name: str) -> Peer:
    """Return a peer by name, or by `SCHEME?OPTION=VALUE` for localrpc's. Raises ValueError."""
    if name in _OTHERS:
        return _OTHERS[name]
    scheme, _, query = name.partition("?")
    if scheme not in _OURS:
        raise ValueError(f"unknown peer {name!r}; the peers are {', '.join(known_peers())}")
    peer = LocalrpcPeer(scheme, query)
    parse_target(peer.target(Path("/check"), "plain"))
    return peer

"""Who can be measured, by name."""

from __future__ import annotations

from pathlib import Path

from localrpc.transports import parse_target, schemes

from .aio import GrpcioAioPeer
from .bare import BARE
from .exchange import MultiprocessingPeer
from .floors import FLOORS
from .foreign import CapnpPeer, Iceoryx2Peer, NngPeer, RpycPeer, ZmqPeer
from .peer import Peer
from .rings import RingPeer
from .rpc import GrpcioPeer, LocalrpcPeer

_OURS = [name for name, scheme in schemes().items() if scheme.meets and name != "grpc"]
"""Where calls between processes go through localrpc; grpc: would measure grpcio once more."""

_OTHERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        GrpcioPeer(),
        GrpcioPeer("tcp"),
        GrpcioAioPeer(),
        GrpcioAioPeer("tcp"),
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
    """Names that find_peer() takes, ours first; options may follow those of ours."""
    return [*_OURS, *_OTHERS]


def default_peers() -> list[str]:
    """Every transport once, grpcio, and what Python has of its own."""
    return list(_DEFAULT)


def find_peer(name: str) -> Peer:
    """The peer of that name, or `SCHEME?OPTION=VALUE` for one of ours; raises ValueError."""
    if name in _OTHERS:
        return _OTHERS[name]
    scheme, _, query = name.partition("?")
    if scheme not in _OURS:
        raise ValueError(f"unknown peer {name!r}; there are {', '.join(known_peers())}")
    peer = LocalrpcPeer(scheme, query)
    parse_target(peer.target(Path("/check"), "plain"))
    return peer

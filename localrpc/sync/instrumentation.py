"""Wrappers of tracing libraries for all channels and servers that are created later.

They are applied when a channel or server is created, and cost nothing per call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from localrpc._later import Later

if TYPE_CHECKING:
    import grpc
else:
    grpc = Later("grpc")

from localrpc import _locks


class _Instrument:
    def __init__(
        self,
        channel: Callable[[grpc.Channel], grpc.Channel] | None,
        server: Callable[[], grpc.ServerInterceptor] | None,
    ) -> None:
        self.channel = channel
        self.server = server


_lock = _locks.Lock()
_instruments: tuple[_Instrument, ...] = ()
"""In the order of add(); the tuple is replaced, never changed."""


def add(
    channel: Callable[[grpc.Channel], grpc.Channel] | None,
    server: Callable[[], grpc.ServerInterceptor] | None,
) -> Callable[[], None]:
    """Add wrappers. Return a function that removes them; calling it again has no effect."""
    global _instruments
    instrument = _Instrument(channel, server)
    with _lock:
        _instruments = (*_instruments, instrument)

    def remove() -> None:
        global _instruments
        with _lock:
            _instruments = tuple(one for one in _instruments if one is not instrument)

    return remove


def around(channel: grpc.Channel) -> grpc.Channel:
    """Return `channel` with all wrappers; the last one added is the outermost."""
    for instrument in _instruments:
        if instrument.channel is not None:
            channel = instrument.channel(channel)
    return channel


def before(interceptors: Sequence[grpc.ServerInterceptor]) -> tuple[grpc.ServerInterceptor, ...]:
    """Return `interceptors` after those of the wrappers; the last one added is the outermost."""
    for instrument in _instruments:
        if instrument.server is not None:
            interceptors = (instrument.server(), *interceptors)
    return tuple(interceptors)

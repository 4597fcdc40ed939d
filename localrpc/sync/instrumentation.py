"""What tracing libraries put around every channel and server that is made from now on.

It is consulted when a channel or a server is made, never on a call's way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import grpc

from localrpc import _locks


class _Instrument(NamedTuple):
    channel: Callable[[grpc.Channel], grpc.Channel] | None
    server: Callable[[], grpc.ServerInterceptor] | None


_lock = _locks.Lock()
_instruments: tuple[_Instrument, ...] = ()
"""In the order in which they came; replaced, never changed."""


def add(
    channel: Callable[[grpc.Channel], grpc.Channel] | None,
    server: Callable[[], grpc.ServerInterceptor] | None,
) -> Callable[[], None]:
    """Returns what takes it away again; more than once does nothing more."""
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
    """`channel` inside of what there is for channels; the last one added is the outermost."""
    for instrument in _instruments:
        if instrument.channel is not None:
            channel = instrument.channel(channel)
    return channel


def before(interceptors: Sequence[grpc.ServerInterceptor]) -> tuple[grpc.ServerInterceptor, ...]:
    """`interceptors` after what there is for servers; the last one added is the outermost."""
    for instrument in _instruments:
        if instrument.server is not None:
            interceptors = (instrument.server(), *interceptors)
    return tuple(interceptors)

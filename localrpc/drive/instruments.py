"""Wrappers of tracing libraries for all channels and servers that are created later.

They are applied when a channel or server is created, and cost nothing per call. Each API has
wrappers of its own, because its channels and interceptors are of other classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from localrpc import _locks

ChannelT = TypeVar("ChannelT")
InterceptorT = TypeVar("InterceptorT")


class _Instrument(Generic[ChannelT, InterceptorT]):
    def __init__(
        self,
        channel: Callable[[ChannelT], ChannelT] | None,
        server: Callable[[], InterceptorT] | None,
    ) -> None:
        self.channel = channel
        self.server = server


class Instruments(Generic[ChannelT, InterceptorT]):
    """The wrappers of one API. Thread-safe."""

    def __init__(self) -> None:
        self._lock = _locks.Lock()
        self._instruments: tuple[_Instrument[ChannelT, InterceptorT], ...] = ()
        """In the order of add(); the tuple is replaced, never changed."""

    def add(
        self,
        channel: Callable[[ChannelT], ChannelT] | None,
        server: Callable[[], InterceptorT] | None,
    ) -> Callable[[], None]:
        """Add wrappers. Return a function that removes them; calling it again has no effect."""
        instrument = _Instrument(channel, server)
        with self._lock:
            self._instruments = (*self._instruments, instrument)

        def remove() -> None:
            with self._lock:
                self._instruments = tuple(one for one in self._instruments if one is not instrument)

        return remove

    def around(self, channel: ChannelT) -> ChannelT:
        """Return `channel` with all wrappers; the last one added is the outermost."""
        for instrument in self._instruments:
            if instrument.channel is not None:
                channel = instrument.channel(channel)
        return channel

    def before(self, interceptors: Iterable[InterceptorT]) -> tuple[InterceptorT, ...]:
        """Return `interceptors` after those of the wrappers, of which the last added is first."""
        found = tuple(interceptors)
        for instrument in self._instruments:
            if instrument.server is not None:
                found = (instrument.server(), *found)
        return found

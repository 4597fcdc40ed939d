"""An event loop that looks for frames for a moment before it sleeps."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from time import monotonic
from typing import Any

from localrpc.drive.core import ffi, lib

_List = list[tuple[selectors.SelectorKey, int]]


class EventLoop(asyncio.SelectorEventLoop):
    """asyncio's event loop on Unix, except that it waits for localrpc's peers without sleeping.

    While no callback is ready, and a peer on another CPU sent something within the last 8 ms or
    so, the loop looks for its next message for up to 150 us before it sleeps: then no message has
    to wake it, and the peer need not ring. Meanwhile a CPU is busy. Descriptors that the loop
    watches are looked at every 20 us; threads of this process run, because the GIL is released.
    A loop that has heard of no peer for a while sleeps as others do.

    Use it as a loop factory::

        with asyncio.Runner(loop_factory=localrpc.aio.EventLoop) as runner:
            runner.run(main())

    For one thread, as every loop; a forked child makes a new one. Raises what
    asyncio.SelectorEventLoop() raises.
    """

    def __init__(self) -> None:
        self._spinner = Spinner(self.call_soon)
        super().__init__(self._spinner)


class Spinner(selectors.EpollSelector):
    """A selector that looks for the frames of engines before it sleeps."""

    def __init__(self, call_soon: Callable[[Callable[[], object]], object]) -> None:
        super().__init__()
        self._call_soon = call_soon
        self._watched: dict[int, tuple[Any, Callable[[], object]]] = {}
        self._change()

    def watch(self, fd: int, engine: Any, drain: Callable[[], object]) -> None:
        """Call `drain` soon when frames have come for the core engine, whose descriptor is `fd`.

        The selector keeps the core engine, so `drain` should refer to its owner weakly.
        """
        if lib.lr_loop_spins(engine) == 0:
            self._watched[fd] = engine, drain
            self._change()

    def forget(self, fd: int) -> None:
        """Leave the engine with that descriptor to the loop's own events. Idempotent."""
        if self._watched.pop(fd, None) is not None:
            self._change()

    def _change(self) -> None:
        engines = [engine for engine, _ in self._watched.values()]
        self._engines: Any = ffi.new("struct lr_engine *[]", engines)
        self._drains = [drain for _, drain in self._watched.values()]
        self._due: Any = ffi.new("uint8_t[]", len(engines) + 1)

    def close(self) -> None:
        self._watched.clear()
        self._change()
        self._call_soon = _do_nothing  # the loop, which holds this object
        super().close()

    def select(self, timeout: float | None = None) -> _List:
        drains = self._drains
        if not drains:
            return super().select(timeout)
        left = -1 if timeout is None else 0 if timeout <= 0 else int(timeout * 1e9) + 1
        due = self._due
        began = monotonic()
        if not lib.lr_loop_spin(self._engines, len(drains), left, self.fileno(), due):
            if left > 0 and timeout is not None:  # a timer is due, and that has taken time
                timeout = max(0.0, timeout - (monotonic() - began))
            return super().select(timeout)
        for number, drain in enumerate(drains):
            if due[number]:
                self._call_soon(drain)
        return super().select(0) if due[len(drains)] else []


def _do_nothing(callback: Callable[[], object]) -> None:
    pass


def spinner_of(loop: asyncio.AbstractEventLoop) -> Spinner | None:
    """Return the selector of an EventLoop, None for other loops."""
    return loop._spinner if isinstance(loop, EventLoop) else None

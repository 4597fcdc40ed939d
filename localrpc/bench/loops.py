"""The event loops that asyncio peers are measured on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class LoopKind:
    """A kind of event loop: both sides of a peer run on it."""

    name: str
    what: str
    factory: str
    """`MODULE:NAME` of what makes a loop."""
    package: str = ""
    """The name of its package for pip, if Python does not have it."""

    def new(self) -> asyncio.AbstractEventLoop:
        module, name = self.factory.split(":")
        loop: asyncio.AbstractEventLoop = getattr(import_module(module), name)()
        return loop

    @property
    def suffix(self) -> str:
        """What it adds to a peer's name."""
        return f"-{self.name}" if self.name else ""

    @property
    def addition(self) -> str:
        """What it adds to a peer's description."""
        return f", on {self.what}" if self.name else ""


PLAIN = LoopKind("", "asyncio's loop", "asyncio:new_event_loop")
UVLOOP = LoopKind("uvloop", "uvloop", "uvloop:new_event_loop", "uvloop")
SPINNING = LoopKind("spinning", "localrpc.aio.EventLoop", "localrpc.aio:EventLoop")


@contextmanager
def serving(
    serve: Callable[[Callable[[], None], asyncio.Event], Any], kind: LoopKind = PLAIN
) -> Iterator[None]:
    """Run `serve(ready, stop)` on a loop in a thread of its own; set `stop` on leaving."""
    ready = threading.Event()
    failures: list[BaseException] = []
    ends: list[Callable[[], object]] = []

    async def work() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        ends.append(lambda: loop.call_soon_threadsafe(stop.set))
        await serve(ready.set, stop)

    def run() -> None:
        try:
            loop = kind.new()
            try:
                loop.run_until_complete(work())
                loop.run_until_complete(loop.shutdown_asyncgens())
            finally:
                loop.close()
        except BaseException as error:
            failures.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    if failures:
        raise failures[0]
    try:
        yield
    finally:
        ends[0]()
        thread.join()

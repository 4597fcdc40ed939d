"""A pytest plugin: every loop of this run looks for frames before it sleeps."""

from __future__ import annotations

import asyncio
import warnings

from localrpc.aio import EventLoop

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # there is no other way for asyncio.run()

    class Policy(asyncio.DefaultEventLoopPolicy):
        def new_event_loop(self) -> asyncio.AbstractEventLoop:
            return EventLoop()

    asyncio.set_event_loop_policy(Policy())

_loop = asyncio.new_event_loop()
assert isinstance(_loop, EventLoop)
_loop.close()

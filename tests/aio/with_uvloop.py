"""A pytest plugin: every loop of this run is uvloop's."""

from __future__ import annotations

import asyncio
import warnings

import uvloop

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # there is no other way for asyncio.run()
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

_loop = asyncio.new_event_loop()
assert isinstance(_loop, uvloop.Loop)
_loop.close()

"""What a handler waits for that goes on until its call is over."""

from __future__ import annotations

from collections.abc import Callable

import grpc


def at_end(context: grpc.RpcContext, callback: Callable[[], None]) -> None:
    """Call `callback` once the call is over, at once if it already is.

    `context.add_callback()` keeps no callback of a call that is over, and returns False: so
    it is with a handler that begins late, after its client has cancelled. If that handler
    then waits for what its callback sets, it waits for good, and its program does not end.
    """
    if not context.add_callback(callback):
        callback()

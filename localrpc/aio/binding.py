"""What a channel and its methods share: one connector, on one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from localrpc.address import Address
from localrpc.aio.interceptors import Interceptors
from localrpc.drive.dialling import Dialling
from localrpc.drive.loop_connector import LoopConnector
from localrpc.drive.naming import MethodNumbers
from localrpc.options import parse_options
from localrpc.transports.base import Dialer


class Binding:
    """A channel's connector, made for the event loop that runs at the first call.

    After that loop was closed, and in a forked child, the next loop gets a new connector.
    """

    def __init__(
        self,
        address: Address,
        options: Sequence[tuple[str, Any]] | None,
        client_interceptors: Sequence[Any],
        dialer: Dialer | None,
    ) -> None:
        self.address = address
        self.options = parse_options(options)
        self.interceptors = Interceptors(client_interceptors)
        self.number = MethodNumbers().number
        self.secure = False
        """True if the channel was opened with credentials."""
        self.closed = False
        self.bound: LoopConnector | None = None
        """The present connector, which may belong to another loop."""
        self.fronts: set[asyncio.Task[Any]] = set()
        """The tasks of interceptors."""
        self._dialling = None if dialer is None else Dialling(dialer)

    def connector(self) -> LoopConnector:
        """Return the connector for the running loop.

        Raises RuntimeError if the channel belongs to another loop that is still open.
        """
        bound = self.bound
        loop = asyncio._get_running_loop()
        if bound is not None and (bound.loop is loop or loop is None):
            return bound
        if loop is None:
            loop = asyncio.get_event_loop()
        if bound is not None:
            if not bound.loop.is_closed() and not bound.inherited:
                raise RuntimeError(
                    f"the channel to {self.address} belongs to {bound.loop!r}, and cannot be used"
                    f" in {loop!r}; open a channel for each loop"
                )
            bound.forsake()
        self.bound = LoopConnector(self.address, self.options, loop, self._dialling)
        self.bound.number = self.number
        self.bound.closed = self.closed
        return self.bound

"""A channel's only connection, over what is connected already."""

from __future__ import annotations

import os
import threading
import time
from typing import Generic, TypeVar

from localrpc.address import Address
from localrpc.errors import ConnectError, ListenError
from localrpc.options import Options
from localrpc.transports.base import Connection, Listener, Offer, Transport
from localrpc.transports.greet import Road, dial_road
from localrpc.transports.media import Medium

M = TypeVar("M", bound=Medium)


class Once(Transport, Generic[M]):
    """Greets in the background, because the other side may take its time to start.

    So a call whose deadline passes does not take the connection with it.
    """

    def __init__(self, road: Road[M], address: Address, options: Options) -> None:
        self._changed = threading.Condition()
        self._connection: Connection | None = None
        self._failure: str | None = None
        self._closed = False
        self._owner = os.getpid()
        threading.Thread(
            target=self._greet, args=(road, address, options), name="localrpc-greet", daemon=True
        ).start()

    def describe(self, reason: str) -> str:
        """The error of a call for which there is no connection any more."""
        return reason

    def describe_wait(self) -> str:
        """The error of a call that has waited for the greeting."""
        return "the other side has not answered yet"

    def _greet(self, road: Road[M], address: Address, options: Options) -> None:
        connection = failure = None
        try:
            connection = dial_road(road, address, options, None)
        except ConnectError as error:
            failure = error.reason
        with self._changed:
            self._failure = failure
            if not self._closed:
                self._connection, connection = connection, None
            self._changed.notify_all()
        if connection is not None:
            connection.close()

    def offers(self) -> tuple[Offer, ...]:
        """None of its own: the transport that made it has said it."""
        return ()

    def listen(self, address: Address, options: Options) -> Listener:
        raise ListenError(str(address), "this is a channel's")

    def dial(self, address: Address, options: Options, deadline: float | None) -> Connection:
        if os.getpid() != self._owner:
            reason = "it is the connection of the process from which this one was forked"
            raise ConnectError(str(address), self.describe(reason), final=True)
        with self._changed:
            while self._connection is None and self._failure is None and not self._closed:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise ConnectError(str(address), self.describe_wait())
                self._changed.wait(left)
            connection, self._connection = self._connection, None
            if connection is not None:
                self._failure = "its only connection has ended"
                return connection
            reason = self._failure or "the channel is closed"
        raise ConnectError(str(address), self.describe(reason), final=True)

    def close(self) -> None:
        if os.getpid() != self._owner:
            return
        with self._changed:
            self._closed = True
            connection, self._connection = self._connection, None
            self._changed.notify_all()
        if connection is not None:
            connection.close()

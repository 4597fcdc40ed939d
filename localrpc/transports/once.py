"""A channel's only connection, over what is connected already."""

from __future__ import annotations

import math
import os
import threading
from typing import Generic, TypeVar

from localrpc import _locks
from localrpc.address import Address
from localrpc.errors import ConnectError
from localrpc.options import Options
from localrpc.transports.attempt import Attempt
from localrpc.transports.base import Connection, Dialer
from localrpc.transports.byte_channels import ByteChannel
from localrpc.transports.handshake_client import ClientSide, dial

C = TypeVar("C", bound=ByteChannel)


class Once(Dialer, Generic[C]):
    """Greets in the background, because the other side may take its time to start.

    So a call whose deadline passes does not take the connection with it.
    """

    single = True
    foreign = "it is the connection of the process from which this one was forked"
    """The error in a forked child."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._changed = _locks.Condition()
        self._connection: Connection | None = None
        self._failure: str | None = None
        self._taken = self._closed = False
        self._owner = os.getpid()

    def begin(self, side: ClientSide[C], options: Options) -> None:
        """Start the handshake; called when the subclass is ready for a fork."""
        threading.Thread(
            target=self._greet, args=(side, options), name="localrpc-greet", daemon=True
        ).start()

    def describe(self, reason: str) -> str:
        """Return the error of a call after the connection has been lost."""
        return reason

    def describe_wait(self) -> str:
        """Return the error of a call that has waited for the handshake."""
        return "the other side has not answered yet"

    def reason(self) -> str:
        """Return why there is no connection. Called with the lock held."""
        if self._taken:
            return "its only connection has ended"
        return self._failure or "the channel is closed"

    def await_reason(self, patience: float) -> None:
        """Wait for a more specific reason. Called with the lock held."""

    def _connect(self, side: ClientSide[C], options: Options) -> Connection:
        """Greet, on a thread of its own. Raises ConnectError."""
        return dial(side, self.address, options, Attempt())

    def _greet(self, side: ClientSide[C], options: Options) -> None:
        connection = failure = None
        try:
            connection = self._connect(side, options)
        except ConnectError as error:
            failure = error.reason
        with self._changed:
            if connection is None:
                self.await_reason(math.inf)
            self._failure = failure
            if not self._closed:
                self._connection, connection = connection, None
            self._changed.notify_all()
        if connection is not None:
            connection.close()

    def dial(self, attempt: Attempt) -> Connection:
        if os.getpid() != self._owner:
            raise ConnectError(str(self.address), self.describe(self.foreign), final=True)
        with self._changed:
            while not (self._connection or self._failure or self._taken or self._closed):
                left = attempt.left()
                if not left:
                    raise ConnectError(str(self.address), self.describe_wait())
                self._changed.wait(min(left, threading.TIMEOUT_MAX))
            connection, self._connection = self._connection, None
            if connection is not None:
                self._taken = True
                return connection
            if self._taken:
                self.await_reason(attempt.left())
            reason = self.reason()
        raise ConnectError(str(self.address), self.describe(reason), final=True)

    def forget_untaken(self) -> None:
        """Close, in a forked child, a connection that no channel of the parent has taken yet."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def close(self) -> None:
        if os.getpid() != self._owner:
            return
        with self._changed:
            self._closed = True
            connection, self._connection = self._connection, None
            self._changed.notify_all()
        if connection is not None:
            connection.close()

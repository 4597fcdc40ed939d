"""The base of the four kinds of method."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from localrpc._later import Later
from localrpc.calls import messages
from localrpc.calls.request import head_of, unsendable
from localrpc.drive import opening
from localrpc.drive.connector import ChannelClosed, Connector
from localrpc.drive.core import deadline_of
from localrpc.errors import InvalidMetadata

# What a call that blocks and succeeds does without.
if TYPE_CHECKING:
    import grpc

    from localrpc.calls import texts
    from localrpc.drive import call as driven
    from localrpc.sync import outcome
else:
    grpc = Later("grpc")
    driven = Later("localrpc.drive.call")
    texts = Later("localrpc.calls.texts")
    outcome = Later("localrpc.sync.outcome")

_Serializer = Callable[[Any], bytes] | None
_Deserializer = Callable[[bytes], Any] | None
_Metadata = Any


class Method:
    """A method of a channel, and how its messages are converted."""

    def __init__(
        self,
        connector: Connector,
        method: str,
        serializer: _Serializer,
        deserializer: _Deserializer,
    ) -> None:
        self._connector = connector
        self._name = method
        self._serializer = serializer
        self._deserializer = deserializer
        self._max_send = connector.options.max_send
        self._unsendable = unsendable(method)

    def converts(self, serializer: _Serializer, deserializer: _Deserializer) -> bool:
        """Return True if these are its functions."""
        return self._serializer is serializer and self._deserializer is deserializer

    def _message(self, request: Any) -> bytes:
        """Serialize without a size check: blocking calls check the result, and so does _begin()."""
        message, refused = messages.serialize(request, self._serializer)
        if refused is not None:
            raise outcome.raised(refused)
        return checked(message, -1)

    def _head(self, metadata: _Metadata, credentials: Any) -> bytes:
        if credentials is not None:
            code, details = texts.NO_CREDENTIALS
            raise outcome.inactive(code, details, texts.debug_text(code, details))
        return head_of(metadata)

    def _begin(
        self,
        timeout: float | None,
        metadata: _Metadata,
        credentials: Any,
        wait_for_ready: bool | None,
        message: bytes | None,
        *,
        streams: bool,
        blocking: bool = False,
        then: Callable[[driven.ClientCall], None] | None = None,
    ) -> driven.ClientCall:
        """Return a call that has begun, or has already failed.

        `then` runs once it is open. Only a `blocking` call waits here for a connection.
        """
        connector = self._connector
        if connector.closed:
            raise ValueError("Cannot invoke RPC: Channel closed!")
        call = driven.ClientCall(
            connector,
            self._name,
            None if streams else self._deserializer,
            deadline=deadline_of(timeout),
            streams=streams,
        )
        if self._unsendable:
            call.end(*self._unsendable, debug=texts.debug_text(*self._unsendable))
            return call
        try:
            head = self._head(metadata, credentials)
        except InvalidMetadata as error:
            call.end(*texts.refusal(error), debug="")
            return call
        except grpc.RpcError as error:
            call.end(error.code(), error.details() or "")
            return call
        refused = None if message is None else messages.check(message, self._max_send)
        if refused is not None:
            call.end(refused.code, refused.details, debug=refused.debug)
            return call

        def start() -> None:
            try:
                opening.open_call(call, head, message, wait_for_ready=bool(wait_for_ready))
                if then is not None and call.running():
                    then(call)
            except ChannelClosed:  # closed after the call had begun
                debug = texts.debug_text(*texts.CHANNEL_CLOSED)
                call.end(*texts.CHANNEL_CLOSED, debug=debug)
            except BaseException:
                call.end(*texts.LOCALLY_CANCELLED, cancelled=True)
                raise

        try:
            if wait_for_ready and not blocking and connector.peek() is None:
                opening.open_later(call, start)
            elif timeout is not None and not timeout > 0:
                call.end(*texts.DEADLINE_EXCEEDED, debug=texts.DEADLINE_DEBUG)
            else:
                start()
        except ChannelClosed:
            raise ValueError("Cannot invoke RPC: Channel closed!") from None
        return call


def checked(message: Any, limit: int) -> bytes:
    """Return a serialized message unless it is larger than `limit` bytes; negative means any size.

    Raises grpcio's error for a message that cannot be sent.
    """
    refused = messages.check(message, limit)
    if refused is not None:
        raise outcome.raised(refused)
    return message if type(message) is bytes else bytes(message)
